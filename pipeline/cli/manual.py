"""What ``--help`` prints: a page in the order of a manual, as plain text that is not cut in a narrow terminal."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["ManualCommand", "ManualGroup", "use_manual"]

_INDENT: Final = 4
_TWO_COLUMNS: Final = 60
"""Width from which commands and what they do stand side by side."""

_EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "": (
        "astrocyte demo",
        "astrocyte inspect events.jsonl --write rules.yaml",
        "astrocyte match rules.yaml events.jsonl",
    ),
    "demo": ("astrocyte demo", "astrocyte demo --scenario cells --seconds 60 --data cells-demo"),
    "broker": ("astrocyte broker --data records --port 9092",),
    "simulate": (
        "astrocyte simulate axons --seconds 60 --out axons.jsonl.zst",
        "astrocyte simulate cells --size 4096 --realtime --set tick_us=100000",
    ),
    "worker": ("astrocyte worker --rules rules.yaml --role correlate,sql",),
    "health": ("astrocyte health",),
    "page": ("astrocyte page --open", "astrocyte page demo-data"),
    "inspect": ("astrocyte inspect 'shop.*'", "astrocyte inspect events.csv --write rules.yaml"),
    "tap": (
        "astrocyte tap alerts --follow",
        "astrocyte tap 'mono.*' --where \"value > 3\" --count 10 --json",
    ),
    "record": ("astrocyte record 'shop.*' --output shop.jsonl.zst --follow",),
    "replay": ("astrocyte replay shop.jsonl.zst --rate 10 --shift",),
    "match": (
        "astrocyte match rules.yaml events.jsonl --alerts",
        "astrocyte match axons demo-data/events.jsonl.zst --json",
    ),
    "backtest": ("astrocyte backtest new.yaml shop.jsonl.zst --against rules.yaml",),
    "why-not": ("astrocyte why-not events.jsonl --rules rules.yaml --rule fever --key ward-3",),
    "explain": ("astrocyte explain 73ef885b-fdf0-87c8-90be-1d60884f4e8b --db sqlite:///astrocyte.db",),
    "verify": ("astrocyte verify --rules rules.yaml --wait",),
    "rules check": ("astrocyte rules check rules.yaml",),
    "completion": ("astrocyte completion bash > ~/.local/share/bash-completion/completions/astrocyte",),
}
"""By the name of the command."""
_TYPES: Final = {"str": "TEXT", "int": "N", "float": "X", "Path": "FILE", "path": "FILE"}
_STATUS: Final = "0: done. 1: failed. 2: wrong use, such as a setting or a rule file that cannot be."


class ManualCommand(TyperCommand):
    """A command whose help is a manual page."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        formatter.write("".join(_page(self, ctx, _width())))


class ManualGroup(TyperGroup):
    """A group of commands whose help is a manual page."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        formatter.write("".join(_page(self, ctx, _width())))


def use_manual(app: typer.Typer) -> None:
    """Let the application and all of its commands print their help as manual pages."""
    app.info.cls = ManualGroup
    for command in app.registered_commands:
        command.cls = ManualCommand
    for group in app.registered_groups:
        if group.typer_instance is not None:
            group.cls = ManualGroup
            use_manual(group.typer_instance)


def _width() -> int:
    """Columns of the terminal, which the variable ``COLUMNS`` overrides; at most those that are read with ease."""
    return max(20, min(80, shutil.get_terminal_size().columns))


def _page(command: Any, ctx: Any, width: int) -> Iterator[str]:
    first, _, rest = inspect.cleandoc(command.help or "").partition("\n\n")
    path = ctx.command_path.replace("python -m ", "")
    yield from _section("NAME", [_filled(f"{path} - {' '.join(first.split())}", width)])
    usage = " ".join([path, *(_piece(piece) for piece in command.collect_usage_pieces(ctx))])
    yield from _section("SYNOPSIS", [_filled(usage, width, hanging=_INDENT)])
    if rest:
        yield from _section("DESCRIPTION", _paragraphs(rest, width))
    records = [
        (param.param_type_name, record)
        for param in command.get_params(ctx)
        if (record := param.get_help_record(ctx)) is not None
    ]
    for title, kind in (("ARGUMENTS", "argument"), ("OPTIONS", "option")):
        entries = [_entry(name, text, width) for found, (name, text) in records if found == kind]
        if entries:
            yield from _section(title, entries)
    if isinstance(command, TyperGroup):
        named = ((name, command.get_command(ctx, name)) for name in command.list_commands(ctx))
        shown = [
            (name, each.get_short_help_str(10_000)) for name, each in named if each is not None and not each.hidden
        ]
        yield from _section("COMMANDS", _listed(shown, width))
        yield from _section("EXIT STATUS", [_filled(_STATUS, width)])
    _, _, name = path.partition(" ")
    if name in _EXAMPLES:
        # An example is one line to be copied: a terminal breaks it where it must.
        yield from _section("EXAMPLES", [" " * _INDENT + line + "\n" for line in _EXAMPLES[name]])


def _piece(text: str) -> str:
    """A part of the synopsis: ``{rules}`` is ``RULES``, ``[topics]...`` is ``[TOPICS]...``."""
    found = re.fullmatch(r"([{]|\[)(.+?)[.]*(?:}|\])([.]*)", text)
    if found is None:
        return text
    name = found[2] if "|" in found[2] or "." in found[2] else found[2].upper()
    return (f"[{name}]" if found[1] == "[" else name) + found[3]


def _named(record: str) -> str:
    """Names of values in capitals: of arguments, and of options without a name of their own by their type."""
    if not record.startswith("-"):
        return record.partition(" <")[0].upper()
    kind = r"<(?:list\[)?(\w+)(?: range)?\]?>"
    return re.sub(kind, lambda found: _TYPES.get(found[1], found[1].upper()), record)


def _section(title: str, parts: Iterable[str]) -> Iterator[str]:
    yield f"{title}\n"
    yield from parts
    yield "\n"


def _paragraphs(text: str, width: int) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        yield ("\n" if number else "") + _filled(" ".join(paragraph.split()), width)


def _entry(name: str, text: str, width: int) -> str:
    """An argument or option on a line of its own, and below it what it means."""
    return _filled(_named(name), width, hanging=_INDENT) + (_filled(text, width, indent=2 * _INDENT) if text else "")


def _listed(rows: list[tuple[str, str]], width: int) -> Iterator[str]:
    if width < _TWO_COLUMNS:
        yield from (_entry(name, text, width) for name, text in rows)
        return
    column = _INDENT + max(len(name) for name, _ in rows) + 2
    for name, text in rows:
        lines = textwrap.wrap(text, width - column) or [""]
        yield f"{' ' * _INDENT + name:<{column}}{lines[0]}".rstrip() + "\n"
        yield from (" " * column + line + "\n" for line in lines[1:])


def _filled(text: str, width: int, *, indent: int = _INDENT, hanging: int = 0) -> str:
    filled = textwrap.fill(
        text, max(width, indent + hanging + 16), initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hanging), break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return filled + "\n"
