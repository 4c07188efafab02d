"""The ``astrocyte`` command. Each command is implemented in a module of its own, loaded when it is called."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from astrocyte.pipeline.cli.completion import serve_completions
from astrocyte.pipeline.cli.manual import use_manual
from astrocyte.pipeline.console import say
from astrocyte.pipeline.stopping import interrupted_as_usual
from astrocyte.schemas.errors import AstrocyteError, InvalidRule, InvalidSettings

__all__ = ["app", "main"]

app = typer.Typer(
    name="astrocyte",
    help="Stream processing: a simulator emits events, Faust agents correlate them in event time, sinks store them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_PARTS: Final = (
    "run",
    "page",
    "inspect",
    "log",
    "letters",
    "correlation.rules",
    "correlation.topology",
    "verify",
    "evolution.phylogeny",
    "evolution.analyze",
    "store",
    "experiments",
    "evolution.study",
    "completion",
)
"""Modules with a function ``register(app)``, in the order in which their commands are listed."""
_END_ON_SIGNAL: Final = ("demo", "page", "simulate")
"""Commands that see to signals themselves, from their first statement on."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"astrocyte {version('astrocyte')}\n")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of ``astrocyte`` itself, given before the name of a command."""
    del version  # its callback prints it
    if context.invoked_subcommand not in _END_ON_SIGNAL:
        interrupted_as_usual()


def _register() -> None:
    for part in _PARTS:
        register: Callable[[typer.Typer], None] = import_module(f"astrocyte.pipeline.cli.{part}").register
        register(app)
    use_manual(app)


_register()


def main() -> None:
    """Run the command; errors are one or two lines, exit status 2 for wrong use and 1 for failure."""
    # Decoding a frame allocates tens of thousands of records, none of them in a cycle; by default the collector would
    # scan them after every 700 allocations.
    gc.set_threshold(50_000, 20, 100)
    # Plugins may lie in the working folder, which is not on the import path of a console script.
    sys.path.append(str(Path.cwd()))
    serve_completions()
    try:
        app(standalone_mode=True)
    except (InvalidRule, InvalidSettings) as error:
        _fail(error, 2)
    except AstrocyteError as error:
        _fail(error, 1)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("jax", "jaxlib"):
            raise
        _fail("this command needs JAX, which is not installed: pip install 'astrocyte[simulator]'", 2)
    except BrokenPipeError:
        # The reader has closed the pipe (`| head`); without this, Python reports an error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(error: Any, status: int) -> None:
    say(f"astrocyte: {error}")
    sys.exit(status)
