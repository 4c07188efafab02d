"""Writes transfers.jsonl, a day of transfers between 40 accounts, and habits.jsonl, one between 12 of another bank.

The same seed gives the same bytes.
"""

import json
import random
from itertools import pairwise
from pathlib import Path

START_MS = 1_759_017_600_000  # 2025-09-28T00:00:00Z


Row = tuple[float, str, str, float]
"""Minute of the day, sender, receiver, amount."""


def passed_on() -> list[Row]:
    """Large amounts that go on within minutes, and others that do not."""
    draw = random.Random(11)
    accounts = [f"acc-{number:02d}" for number in range(40)]
    rows: list[Row] = []
    for _ in range(220):
        sender, receiver = draw.sample(accounts, 2)
        rows.append((draw.uniform(6 * 60, 23 * 60), sender, receiver, round(draw.uniform(5, 900), 2)))
    # Money that is passed on within minutes, each time with a little less: four legs.
    chain = ("acc-05", "acc-17", "acc-28", "acc-31", "acc-02")
    for leg, (sender, receiver) in enumerate(pairwise(chain)):
        rows.append((613.0 + 9.5 * leg, sender, receiver, round(9_400 * 0.97**leg, 2)))
    # Salaries: large, and not passed on.
    rows += [(540.0 + number, "acc-39", f"acc-{number:02d}", 3_100.0) for number in range(6)]
    # A house is paid for: passed on once, to the notary, and not further.
    rows += [(700.0, "acc-12", "acc-20", 8_000.0), (712.0, "acc-20", "acc-33", 8_000.0)]
    # Like the chain, but over days, of which the file holds one: the next leg comes three hours later.
    rows += [(800.0, "acc-08", "acc-22", 5_000.0), (980.0, "acc-22", "acc-14", 4_900.0)]
    return rows


def habits() -> list[Row]:
    """Small amounts, of which some go on from the same account to the same one again and again, for two hours."""
    draw = random.Random(5)
    accounts = [f"acc-{number:02d}" for number in range(12)]
    rows: list[Row] = []
    for _ in range(160):
        sender, receiver = draw.sample(accounts, 2)
        rows.append((draw.uniform(6 * 60, 23 * 60), sender, receiver, round(draw.uniform(5, 900), 2)))
    for number in range(12):
        minute, amount = 601.0 + 10 * number, 400.0 + 7 * number
        rows += [(minute, "acc-03", "acc-07", amount), (minute + 4, "acc-07", "acc-11", round(0.96 * amount, 2))]
    return rows


def write(name: str, rows: list[Row]) -> None:
    """Write the rows to a file beside this program, as JSON lines in order of time."""
    lines = [
        json.dumps({"ts": START_MS + round(60_000 * minute), "transfer": f"t{number:04d}", "sender": sender,
                    "receiver": receiver, "amount": amount}) + "\n"
        for number, (minute, sender, receiver, amount) in enumerate(sorted(rows))
    ]  # fmt: skip
    (Path(__file__).parent / name).write_text("".join(lines))


if __name__ == "__main__":
    write("transfers.jsonl", passed_on())
    write("habits.jsonl", habits())
