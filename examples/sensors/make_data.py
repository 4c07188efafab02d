"""Writes readings.csv: two hours of four wards, a reading each minute. The same seed gives the same bytes."""

import csv
import random
from pathlib import Path

START_MS = 1_759_053_600_000  # 2025-09-28T10:00:00Z
WARDS = ("ward-1", "ward-2", "ward-3", "ward-4")


def main() -> None:
    """Write the file beside this program."""
    draw = random.Random(2)
    rows: list[tuple[int, str, str, int]] = []
    for number, ward in enumerate(WARDS):
        battery = 90 - 20 * number
        for minute in range(120):
            celsius = 36.8 + draw.gauss(0, 0.15)
            if ward == "ward-3" and 40 <= minute < 70:
                celsius += 0.09 * (minute - 40)  # a fever
            text = f"{celsius:.1f}"
            if ward == "ward-2" and 60 <= minute < 64:
                text = "n/a"  # the probe came loose
            if ward == "ward-4" and 80 <= minute < 100:
                continue  # silence: the battery is flat
            rows.append(
                (START_MS + 60_000 * minute + draw.randrange(20_000), ward, text, max(0, battery - minute // 4))
            )
    rows.sort()
    with (Path(__file__).parent / "readings.csv").open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("measured_at", "ward", "celsius", "battery"))
        writer.writerows(rows)


if __name__ == "__main__":
    main()
