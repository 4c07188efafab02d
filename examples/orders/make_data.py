"""Writes changes.jsonl: changes of the table `orders` as Debezium sends them. The same seed gives the same bytes.

The file is a recorded log, a message with its topic, partition, key and time on each line, as `astrocyte record` and
`kcat -J` write it.
"""

import json
import random
from pathlib import Path

START_MS = 1_759_053_600_000  # 2025-09-28T10:00:00Z
HOUR_MS = 3_600_000


def changes(draw: random.Random, order: int) -> list[tuple[int, dict[str, object] | None, dict[str, object] | None]]:
    """Time, row before and row after of each change of one order."""
    at = START_MS + draw.randrange(24 * HOUR_MS)
    row: dict[str, object] = {
        "order_id": order, "customer_id": 100 + order % 17, "status": "new",
        "amount": f"{draw.uniform(10, 500):.2f}", "address": draw.choice(("home", "work")),
    }  # fmt: skip
    found: list[tuple[int, dict[str, object] | None, dict[str, object] | None]] = [(at, None, dict(row))]

    def change(after_h: float, **columns: object) -> None:
        nonlocal at, row
        at += round(after_h * HOUR_MS * draw.uniform(0.8, 1.2))
        found.append((at, dict(row), row | columns))
        row = row | columns

    if order % 13 == 5:
        at += HOUR_MS
        return [*found, (at, dict(row), None)]  # cancelled: the row is deleted
    change(0.5, status="paid")
    if order == 12:
        change(0.2, amount="1.00")  # somebody changes a price that is already paid
    if order % 11 == 3:
        return found  # paid, and never shipped
    if order == 23:
        change(2, address="locker 9")
    change(8, status="shipped")
    if order == 30:
        change(1, status="paid")  # a status that goes backwards
    return found


def main() -> None:
    """Write the file beside this program."""
    draw = random.Random(4)
    found = sorted(
        (each for order in range(40) for each in changes(draw, order)), key=lambda each: (each[0], str(each[1]))
    )
    lines, offset = [], 0

    def line(at: int, key: dict[str, object], value: object) -> None:
        nonlocal offset
        payload = None if value is None else json.dumps(value, separators=(",", ":"))
        message = {
            "topic": "shop.orders", "partition": 0, "offset": offset, "tstype": "create", "ts": at + 40,
            "key": json.dumps(key), "payload": payload,
        }  # fmt: skip
        lines.append(json.dumps(message) + "\n")
        offset += 1

    for at, before, after in found:
        row = after or before or {}
        operation = "c" if before is None else "d" if after is None else "u"
        key = {"order_id": row["order_id"]}
        value = {
            "before": before,
            "after": after,
            "op": operation,
            "source": {"ts_ms": at, "table": "orders"},
            "ts_ms": at + 40,
        }
        line(at, key, value)
        if after is None:
            line(at, key, None)  # the tombstone that follows a deletion
    (Path(__file__).parent / "changes.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()
