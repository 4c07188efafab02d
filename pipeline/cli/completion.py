"""``astrocyte completion``: a script by which a shell completes commands, options and names."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Annotated, Final, Literal

import typer

__all__ = [
    "benchmark_names",
    "register",
    "rule_names",
    "scenario_names",
    "serve_completions",
    "study_names",
    "worker_roles",
]

_VARIABLE: Final = "_ASTROCYTE_COMPLETE"
"""Set by the script of a shell that asks for completions."""


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("completion")(completion_command)


def completion_command(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell: bash, zsh or fish.")],
) -> None:
    """Print a script that completes commands, options, names and files in your shell.

    For this shell alone: source <(astrocyte completion bash). For all: write it to
    ~/.local/share/bash-completion/completions/astrocyte, to _astrocyte in a folder of zsh's $fpath, or to
    ~/.config/fish/completions/astrocyte.fish.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # typer lists no names

    script = get_completion_script(prog_name="astrocyte", complete_var=_VARIABLE, shell=shell)
    sys.stdout.write(script.strip() + "\n")


def rule_names(incomplete: str) -> list[str]:
    """Shipped rule files that begin so; where none does, a shell offers its files."""
    from astrocyte.pipeline.topology.rule_files import shipped_rules

    return _beginning(incomplete, shipped_rules())


def scenario_names(incomplete: str) -> list[str]:
    """Scenarios that begin so."""
    from astrocyte.simulator.scenario import SCENARIOS

    return _beginning(incomplete, SCENARIOS.names())


def study_names(incomplete: str) -> list[str]:
    """Studies that begin so."""
    from astrocyte.pipeline.studies.study import STUDIES

    return _beginning(incomplete, STUDIES.names())


def benchmark_names(incomplete: str) -> list[str]:
    """Benchmarks that begin so."""
    from astrocyte.pipeline.bench import BENCHMARKS

    return _beginning(incomplete, BENCHMARKS)


def worker_roles(incomplete: str) -> list[str]:
    """Roles that begin so; after a comma, further ones."""
    from astrocyte.pipeline.role_registry import role_names

    given, comma, last = incomplete.rpartition(",")
    return [f"{given}{comma}{name}" for name in _beginning(last, role_names())]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def serve_completions() -> None:
    """Prepare the answer to a shell that asks for completions; nothing where none does."""
    if _VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
