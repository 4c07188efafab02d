"""``astrocyte bench``: each benchmark module has ``run(quick) -> Iterator[dict]``, one dict per figure."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, Final

from astrocyte.schemas.errors import InvalidSettings

__all__ = ["BENCHMARKS", "run_benchmarks"]

BENCHMARKS: Final[dict[str, tuple[str, ...]]] = {
    "frames": ("frames",),
    "engine": ("engine.cep", "engine.combinations", "engine.conjunction", "engine.windows"),
    "transport": ("transport",),
    "broker": ("broker",),
    "pipeline": ("pipeline", "alerts"),
    "simulator": ("simulator",),
    "worlds": ("worlds",),
    "sinks": ("sinks", "influx"),
    "phylogeny": ("phylogeny",),
    "page": ("page.instants", "page.rule_trials", "page.live"),
    "insight": ("insight",),
}
"""Modules of each benchmark, by its name."""
_ONLY_BY_NAME: Final = ("worlds",)
"""Benchmarks that take hours, and are no part of all."""


def figures(names: Sequence[str], *, quick: bool) -> Iterator[dict[str, Any]]:
    """Figures of the named benchmarks, by default of all but the longest, as measured.

    Raises InvalidSettings for an unknown name.
    """
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise InvalidSettings(f"no benchmark {unknown[0]!r}; choose from {', '.join(BENCHMARKS)}")
    for name in names or (name for name in BENCHMARKS if name not in _ONLY_BY_NAME):
        for module in BENCHMARKS[name]:
            yield from import_module(f"astrocyte.pipeline.bench.{module}").run(quick)


def run_benchmarks(names: Sequence[str], *, quick: bool, as_json: bool) -> None:
    """Print every figure when it is measured: one JSON object per line, or one readable line."""
    import orjson

    for figure in figures(names, quick=quick):
        if as_json:
            sys.stdout.write(orjson.dumps(figure, option=orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")
        else:
            sys.stdout.write(_line(figure) + "\n")
        sys.stdout.flush()


def _line(figure: dict[str, Any]) -> str:
    rest = ", ".join(f"{name} {_text(value)}" for name, value in figure.items() if name != "bench")
    return f"{figure['bench']}: {rest}"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
