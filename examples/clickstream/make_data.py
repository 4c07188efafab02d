"""Writes clicks.jsonl: one hour of a web shop, 60 visitors. The same seed gives the same bytes."""

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

START = datetime(2025, 9, 28, 10, 0, tzinfo=UTC)
ITEMS = {"lamp": 49.0, "chair": 129.0, "desk": 349.0, "rug": 89.0}
BROKEN_S = (1080, 1320)
"""Seconds between which the button of the checkout does not work."""


def visit(draw: random.Random, user: str) -> list[tuple[float, dict[str, object]]]:
    """Seconds and clicks of one visitor, who leaves at one of the steps or buys."""
    at = draw.uniform(0, 2400)
    item = draw.choice(sorted(ITEMS))
    price = ITEMS[item]
    clicks: list[tuple[float, dict[str, object]]] = []

    def click(page: str, pause: float, **more: object) -> None:
        nonlocal at
        clicks.append((at, {"user": user, "page": page, **more}))
        at += draw.uniform(0.5 * pause, 1.5 * pause)

    click("home", 20)
    for _ in range(draw.randint(1, 3)):
        click("product", 40, item=item)
    if draw.random() < 0.2:
        return clicks  # looked, and left
    click("cart", 30, item=item, total=price)
    if draw.random() < 0.25:
        return clicks  # left a full cart
    if BROKEN_S[0] <= at < BROKEN_S[1]:
        for _ in range(5):
            click("checkout", 2, total=price)
        return clicks
    click("checkout", 45, total=price)
    if draw.random() < 0.85:
        click("paid", 1, total=price)
    return clicks


def main() -> None:
    """Write the file beside this program."""
    draw = random.Random(1)
    clicks = [each for number in range(60) for each in visit(draw, f"user-{number:02d}")]
    clicks.sort(key=lambda each: each[0])
    lines = []
    for seconds, body in clicks:
        at = (START + timedelta(milliseconds=round(1000 * seconds))).isoformat(timespec="milliseconds")
        lines.append(json.dumps({"at": at.replace("+00:00", "Z"), **body}) + "\n")
    (Path(__file__).parent / "clicks.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()
