"""The command ``rules publish``: rule files for running workers, through the topic of rules."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from astrocyte.pipeline.cli.options import Broker
from astrocyte.pipeline.console import say, short
from astrocyte.schemas.errors import InvalidRule, InvalidSettings

__all__ = ["publish_command"]

_LINE: Final = 500
"""Characters that a line of the list has for what a file holds."""


def publish_command(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Rule files; each replaces the published file of the same name.")
    ] = None,
    *,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="NAME", help="Remove a published file; repeatable.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show what is published, and change nothing.")] = False,
    broker: Broker = None,
) -> None:
    """Check rule files and apply them to running workers, without a restart."""
    from astrocyte.agents.loading import load_rules
    from astrocyte.pipeline.settings import load_settings
    from astrocyte.pipeline.topology.overrides import origin_changes
    from astrocyte.pipeline.topology.plan import checked_plan
    from astrocyte.pipeline.topology.rule_updates import (
        check_published,
        publish_files,
        published_files,
        published_rules,
    )

    settings = load_settings(broker=broker)  # imports the plugins, whose validators the files may name
    if listed:
        if files or remove:
            raise InvalidSettings("--list changes nothing; leave the files and --remove out")
        _list_published(settings.broker)
        return
    contents: dict[str, bytes] = {}
    for path in files or ():
        checked_plan(load_rules(path))
        contents[path.stem] = path.read_bytes()
    messages: list[tuple[str, bytes | None]] = [*contents.items(), *((name, None) for name in remove or ())]
    if not messages:
        raise InvalidSettings("no rule file given; name one, or use --remove NAME")

    if remove:
        asyncio.run(check_published(settings.broker, remove))
    published = asyncio.run(published_files(settings.broker))
    asyncio.run(publish_files(settings, published, contents, remove or ()))
    for name, text in messages:
        say(f"{name}: {'removed' if text is None else 'published'}")
    stays = {name: text for name, text in published.items() if name not in dict(messages)}
    before, after = (published_rules(files, lambda _rules: None) for files in (published, stays | contents))
    for line in origin_changes(before.origins, after.origins):
        say(f"in force: {line}")


def _list_published(broker: str) -> None:
    """One line for each published file: its name, and what it holds."""
    from astrocyte.agents.loading import load_rules
    from astrocyte.pipeline.topology.overrides import overrides
    from astrocyte.pipeline.topology.rule_updates import published_files, published_rules

    published = asyncio.run(published_files(broker))
    for name, text in sorted(published.items()):
        try:
            found = load_rules(text.decode("utf-8", "replace"))
        except InvalidRule as error:
            holds = f"refused by workers: {error}"
        else:
            named = {
                "rules": [rule.name for rule in found.rules],
                "windows": [window.name for window in found.windows],
                "statistics": [statistic.name for statistic in found.insight],
            }
            holds = "; ".join(f"{kind} {', '.join(names)}" for kind, names in named.items() if names)
        sys.stdout.write(f"{short(name)}: {short(holds or 'no rules', _LINE)}\n")
    for each in overrides(published_rules(published, lambda _rules: None).origins):
        say(f"in force: {each}")
    if not published:
        say("no rule file is published")
