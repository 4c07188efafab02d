"""``astrocyte completion``: a script by which a shell completes commands, options and names."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Final, Literal

import typer

__all__ = ["register", "serve_completions"]

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


def serve_completions() -> None:
    """Prepare the answer to a shell that asks for completions; nothing where none does."""
    if _VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
