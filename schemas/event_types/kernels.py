"""Event types of the ``kernels`` scenario: the columns of the table kernel_geometry (docs/data.md), and wars."""

from __future__ import annotations

from typing import Final

from astrocyte.schemas.catalog import EventType, Field

__all__ = ["EVENT_TYPES"]

_PHI: Final = "1 at the kernel's root with kappa 64, falling with the distance from both"

EVENT_TYPES = (
    EventType(
        stream="kernel_geometry",
        key="simulation_id",
        about={
            "kernel_id": Field(
                "int64", low=0,
                doc="id of the kernel: (tick of birth + 1) * 2^25 + place, of a founder its place; never used again",
            ),
            "god_name": Field("string", "name, a function of the root"),
            "domain": Field("string", "domain, a function of the root"),
            "primitive_root": Field("int32", "number of the root of E8 that attracts the kernel", low=0, high=239),
            "basin_coordinates": Field("list<float32>", "8 coordinates; the roots have length 1", "length"),
            "parent_kernels": Field("json", "JSON list of the parents' ids: none, one, or two"),
            "phi": Field("float64", _PHI, "share", 0.0, 1.0),
            "kappa": Field("float64", "coupling; training returns it to 64, a lost war raises it", "coupling", low=0),
            "regime": Field(
                "string", "linear for kappa below 40, geometric below 80, else breakdown",
                values=("linear", "geometric", "breakdown"),
            ),
            "generation": Field("int32", "generations since the founders; one more than the later parent's",
                                "generations", low=0),
            "success_count": Field("int32", "training steps that succeeded and wars won", "successes", low=0),
            "failure_count": Field("int32", "training steps that failed and wars lost", "failures", low=0),
            "element_group": Field("string", "element group, a function of the root"),
            "ecological_niche": Field("string", "niche, a function of successes less failures"),
            "target_function": Field("string", "what the kernel is for, a function of the root"),
            "valence": Field("int32", "1 + number of the element group modulo 4", low=1, high=4),
            "breeding_target": Field("string", "element group with which the kernel breeds"),
            "training_steps": Field("int64", "training steps, with those of merged parents", "steps", low=0),
            "spawned_at": Field("int64", "event time of the kernel's first event", "us since 1970", low=0),
        },
        types=("spawned", "merged", "bred", "updated", "retired"),
        priority="critical",
        doc="A kernel after it was spawned, merged, bred, trained or retired.",
    ),
    EventType(
        stream="war_history",
        key="simulation_id",
        about={
            "war_id": Field("int64", "id of the war: tick * 2^25 + place of the attacker", low=0),
            "mode": Field("string", "how it was fought", values=("blitzkrieg", "siege", "hunt")),
            "attacker_id": Field("int64", "kernel that declared the war", low=0),
            "defender_id": Field("int64", "kernel that was attacked", low=0),
            "winner_id": Field("int64", "kernel that won", low=0, null="in a stalemate"),
            "attacker_phi": Field("float64", "phi of the attacker before the war", "share", 0.0, 1.0),
            "defender_phi": Field("float64", "phi of the defender before the war", "share", 0.0, 1.0),
            "phi_delta": Field("float64", "attacker_phi less defender_phi", "share", -1.0, 1.0),
            "rounds": Field("int32", "rounds; the nearer the war was to a stalemate, the more", "rounds", 1, 10),
            "outcome": Field("string", "who won", values=("attacker_won", "defender_won", "stalemate")),
        },
        types=("war",),
        priority="critical",
        doc="One war between two kernels and who won it.",
    ),
)  # fmt: skip
