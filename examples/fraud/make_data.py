"""Writes payments.jsonl: a day of payments by 40 cards, amounts as text. The same seed gives the same bytes."""

import json
import random
from pathlib import Path

START_MS = 1_759_017_600_000  # 2025-09-28T00:00:00Z
HOMES = {"card-07": "NL", "card-11": "FR", "card-21": "DE", "card-33": "FR"}
SHOPS = ("grocer", "fuel", "cafe", "books", "chemist")


def main() -> None:
    """Write the file beside this program."""
    draw = random.Random(3)
    rows: list[tuple[float, str, float, str, str, str]] = []
    for number in range(40):
        card, home = f"card-{number:02d}", draw.choice(("DE", "FR", "NL"))
        home = HOMES.get(card, home)
        for _ in range(draw.randint(3, 9)):
            minute = draw.uniform(7 * 60, 22 * 60)
            rows.append((minute, card, draw.uniform(4, 90), home, draw.choice(SHOPS), "ok"))
    # A stolen number is tried with a small amount, then used.
    rows += [(612.0, "card-07", 1.0, "NL", "donation", "ok"), (615.5, "card-07", 879.0, "NL", "phones", "ok"),
             (617.0, "card-07", 649.5, "NL", "phones", "ok")]  # fmt: skip
    # A card in two countries within an hour.
    rows += [(796.0, "card-21", 23.4, "DE", "cafe", "ok"), (824.0, "card-21", 310.0, "BR", "jeweller", "ok")]
    # Wrong numbers tried one after the other at one terminal.
    rows += [(900 + 0.2 * number, "card-33", 50.0, "FR", "kiosk", "refused") for number in range(6)]
    # An ordinary card that looks a little like the first case, but takes an hour.
    rows += [(700.0, "card-11", 1.5, "FR", "cafe", "ok"), (760.0, "card-11", 420.0, "FR", "rail", "ok")]
    rows.sort()
    lines = [
        json.dumps({"ts": START_MS + round(60_000 * minute), "payment": f"p{number:04d}", "card": card,
                    "amount": f"{amount:.2f}", "country": country, "shop": shop, "status": status}) + "\n"
        for number, (minute, card, amount, country, shop, status) in enumerate(rows)
    ]  # fmt: skip
    (Path(__file__).parent / "payments.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()
