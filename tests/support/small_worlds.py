"""Small worlds in which everything happens that the scenario can emit: ticks and settings of each.

Compiling a world takes longer than running it. Tests that use these settings, with any seed, share compiled programs:
sizes, periods and shares are those of the scenarios' own samples, since programs differ by them.
"""

from __future__ import annotations

from typing import Any

__all__ = ["SMALL_WORLDS"]

SMALL_WORLDS: dict[str, tuple[int, dict[str, Any]]] = {
    "axons": (60, {"domains": 96, "plant_hz": 2.0, "rate_hz": (20.0, 20.0, 20.0)}),
    "cells": (
        120,
        {
            "size": 1024,
            "routine_share": 0.2,
            "plants": [{"kind": "collapse", "at_tick": 60, "strength": 0.5},
                       {"kind": "depletion", "at_tick": 90, "ticks": 20, "strength": 0.9}],
        },
    ),
    "ecology": (
        100,
        {"size": 512, "routine_every": 10, "routine_share": 0.3, "steps_every": 1, "upkeep": 0.4, "old_age": 20,
         "starvation_threshold": 8, "starvation_damage": 0.2,
         "plants": [{"kind": "collapse", "at_tick": 50, "strength": 0.4}]},
    ),
    "kernels": (200, {"size": 96, "war": 0.02, "spawn": 0.02, "breed": 0.05, "merge_radius": 0.6, "merge_every": 10,
                      "plants": [{"kind": "breakdown", "at_tick": 60, "strength": 0.5}]}),
    "dna": (120, {"size": 24, "generation_ticks": 4, "rollback": 0.5, "save": 0.02, "backup": 0.02}),
}  # fmt: skip
