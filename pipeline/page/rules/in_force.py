"""The content of the rule files that run: those of the page's ``--rules``, and what was published over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.topology.rule_files import join_rule_sets, path_of
from astrocyte.pipeline.topology.rule_updates import LiveRules
from astrocyte.schemas.errors import InvalidRule

__all__ = ["InForce", "ruleset_of_text"]


def ruleset_of_text(text: str) -> RuleSet:
    """The rules of a text, never of the file that a text like ``a.yaml`` names. Raises InvalidRules."""
    return load_rules(text + "\n")


@dataclass(frozen=True, slots=True)
class InForce:
    """Content by name: of files, and of what was published, which replaces rules of the same names."""

    files: Mapping[str, str]
    published: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_files(cls, files: Iterable[str | Path], published: Mapping[str, str] | None = None) -> Self:
        """The files as they are now. Raises InvalidRule for one that cannot be read."""
        contents = {}
        for file in files:
            path = path_of(file)
            try:
                contents[path.stem] = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidRule(f"{path}: cannot be read: {error}") from None
        return cls(contents, published or {})

    @classmethod
    def of_json(cls, body: Mapping[str, Any]) -> Self:
        """What `as_json` gave."""
        return cls(dict(body["files"]), dict(body["published"]))

    def as_json(self) -> dict[str, Any]:
        """Both as objects."""
        return {"files": dict(self.files), "published": dict(self.published)}

    def text(self, name: str) -> str | None:
        """The text of that name that counts; None where there is none."""
        return self.published.get(name, self.files.get(name))

    def with_text(self, name: str, text: str) -> Self:
        """The same with another text under a name: in place of the one that counts, or beside the others."""
        if name in self.files and name not in self.published:
            return replace(self, files={**self.files, name: text})
        return replace(self, published={**self.published, name: text})

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
