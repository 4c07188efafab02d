"""The content of the rule files that run: those of the page's ``--rules``, and what was published over them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.topology.overrides import Origins, origins_of, published_label
from astrocyte.pipeline.topology.rule_files import join_rule_sets, path_of
from astrocyte.pipeline.topology.rule_updates import LiveRules
from astrocyte.schemas.errors import AstrocyteError, InvalidRule

__all__ = ["InForce", "file_label", "ruleset_of_text"]


def file_label(name: str) -> str:
    """What messages call a file that was not published."""
    return f"the file {name!r}"


def ruleset_of_text(text: str) -> RuleSet:
    """The rules of a text, never of the file that a text like ``a.yaml`` names. Raises InvalidRules."""
    return load_rules(text + "\n")


@dataclass(frozen=True, slots=True)
class InForce:
    """Content by name: of files, and of what was published, which replaces rules of the same names."""

    files: Mapping[str, str]
    published: Mapping[str, str] = field(default_factory=dict)
    """In the order of publishing: of two files with one rule, the newer one wins."""
    publishes: bool = False
    """Whether a text comes into force by being published, so that its file stays beneath it."""

    @classmethod
    def of_files(
        cls, files: Iterable[str | Path], published: Mapping[str, str] | None = None, *, publishes: bool = False
    ) -> Self:
        """The files as they are now. Raises InvalidRule for one that cannot be read."""
        contents = {}
        for file in files:
            path = path_of(file)
            try:
                contents[path.stem] = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidRule(f"{path}: cannot be read: {error}") from None
        return cls(contents, published or {}, publishes)

    @classmethod
    def of_json(cls, body: Mapping[str, Any]) -> Self:
        """What `as_json` gave."""
        return cls(dict(body["files"]), dict(body["published"]), body["publishes"])

    def as_json(self) -> dict[str, Any]:
        """All as objects."""
        return {"files": dict(self.files), "published": dict(self.published), "publishes": self.publishes}

    def text(self, name: str) -> str | None:
        """The text of that name that counts; None where there is none."""
        return self.published.get(name, self.files.get(name))

    def with_text(self, name: str, text: str) -> Self:
        """What runs once a text is in force under a name: published as the newest, or in place of its file."""
        if name in self.files and name not in self.published and not self.publishes:
            return replace(self, files={**self.files, name: text})
        others = {other: each for other, each in self.published.items() if other != name}
        return replace(self, published={**others, name: text})

    def origins(self) -> Origins:
        """The files of each rule in force, by their labels; without those that are not valid."""
        return origins_of((label, ruleset) for label, _, ruleset in self._labelled())

    def text_of(self, rule: str) -> str | None:
        """The text from which the rule of that name is in force; None where there is none."""
        found = [text for _, text, ruleset in self._labelled() if rule in {each.name for each in ruleset.rules}]
        return found[-1] if found else None

    def _labelled(self) -> Iterator[tuple[str, str, RuleSet]]:
        files = [(file_label(name), text) for name, text in self.files.items()]
        for label, text in (*files, *((published_label(name), text) for name, text in self.published.items())):
            with contextlib.suppress(AstrocyteError):
                yield label, text, ruleset_of_text(text)

    def ruleset(self) -> RuleSet:
        """The rules that run, without what workers have refused of what was published. Raises InvalidRule."""
        live = LiveRules(join_rule_sets(ruleset_of_text(text) for text in self.files.values()))
        for name, text in self.published.items():
            live.apply(name, text.encode())
        return live.ruleset

    def checked(self, name: str) -> RuleSet:
        """`ruleset` in which the text of that name must be valid beside the others. Raises InvalidRule."""
        text = self.text(name)
        others = replace(self, published={other: each for other, each in self.published.items() if other != name})
        if name not in self.published:
            return others.ruleset()
        live = LiveRules(others.ruleset())
        return live.take(name, (text or "").encode() or None)
