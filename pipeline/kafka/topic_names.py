"""Names of topics in messages: the user's own come first, and a name that is meant is found by its parts."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.registry import did_you_mean
from astrocyte.schemas.topics import SIMULATIONS, is_derived, stream_of

__all__ = ["did_you_mean_topic", "listed_topics"]

_SHOWN: Final = 20


def _users_first(topics: Iterable[str]) -> list[str]:
    """The topics, sorted: the user's own before those of shipped simulations and those that the pipeline writes."""
    return sorted(topics, key=lambda topic: (_rank(topic), topic))


def _rank(topic: str) -> int:
    if is_derived(topic) or topic == SIMULATIONS:
        return 2
    stream = stream_of(topic)
    return 1 if stream is not None and CATALOG.find(stream) is not None else 0


def listed_topics(topics: Iterable[str]) -> str:
    """The first topics as text, the user's own before others, and how many more there are."""
    names = _users_first(topics)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def did_you_mean_topic(name: str, known: Collection[str]) -> str:
    """``; did you mean 'x'?``: a topic of which ``name`` is a part (``orders`` of ``shop.orders``), or a similar one.

    Topics that the pipeline writes are suggested only where no other is similar.
    """
    names = _users_first(known)
    wanted = name.casefold()
    parts = [each for each in names if wanted in each.casefold().split(".") or each.casefold().endswith(f".{wanted}")]
    if parts:
        return f"; did you mean {parts[0]!r}?"
    others = [each for each in names if _rank(each) < 2]
    last = {each.rpartition(".")[2]: each for each in reversed(others)}
    return did_you_mean(name, others) or _by_last(name, last) or did_you_mean(name, names)


def _by_last(name: str, last: dict[str, str]) -> str:
    """The topic whose last part is similar to that of the name."""
    hint = did_you_mean(name.rpartition(".")[2], last)
    return next((f"; did you mean {topic!r}?" for part, topic in last.items() if f"{part!r}" in hint), "")
