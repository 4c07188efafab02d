"""Names of Kafka topics, derived from streams; all other code takes them from here."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final, NamedTuple

__all__ = [
    "ALERTS",
    "CLOCK",
    "CONTROL_PREFIX",
    "DEAD_LETTERS",
    "KEYED_PREFIX",
    "LATE",
    "METRICS_PREFIX",
    "MONO_PREFIX",
    "MOST_CHARACTERS",
    "MULTI_EVENTS",
    "RETRIES",
    "RULES",
    "SAMPLING",
    "SILENCES",
    "SIMULATIONS",
    "STATS",
    "TOPOLOGY",
    "TRUTH",
    "TopicPartition",
    "control_topic",
    "is_derived",
    "is_legal",
    "keyed_topic",
    "metrics_topic",
    "mono_topic",
    "state_topic",
    "stream_of",
    "why_illegal",
]

MOST_CHARACTERS: Final = 249
"""Longest name of a topic that Kafka takes."""
MONO_PREFIX: Final = "mono."
CONTROL_PREFIX: Final = "control."
KEYED_PREFIX: Final = "keyed."
METRICS_PREFIX: Final = "metrics."
MULTI_EVENTS: Final = "multi.events"
ALERTS: Final = "alerts"
LATE: Final = "late"
DEAD_LETTERS: Final = "dead_letters"
RULES: Final = "rules"
CLOCK: Final = "control.clock"
SAMPLING: Final = "control.sampling"
"""What workers decided to leave out of streams while they were behind."""
SILENCES: Final = "control.silences"
"""How far silent domains had read (`agents.silence`); compacted, so that the newest of each remain."""
SIMULATIONS: Final = "simulations"
"""Scenario, seed and configuration of each run."""
STATS: Final = "control.stats"
"""Counters of every domain and sink; compacted, so that the newest of each remain."""
TOPOLOGY: Final = "topology"
"""When junctions formed and dissolved between two domains, by event time."""
RETRIES: Final = "control.retries"
"""Dead letters that were sent again, by their id; compacted."""
TRUTH: Final = "truth"
"""Stream (not topic) of planted anomalies; its topic is ``mono.truth``."""


_OUTPUTS: Final = frozenset({MULTI_EVENTS, ALERTS, LATE, DEAD_LETTERS, RULES, TOPOLOGY})
_OUTPUT_PREFIXES: Final = (CONTROL_PREFIX, KEYED_PREFIX, METRICS_PREFIX, "state.", "__")
_LEGAL: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{MOST_CHARACTERS}}}", re.ASCII)

_NAMED: Final = 5
"""Most characters that are named because Kafka does not take them."""
_FIELD: Final = re.compile(r"[A-Za-z0-9_-]{0,100}", re.ASCII)
"""Fields that stand in the name of a topic as they are; of others a part and a hash."""


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


def is_legal(topic: str) -> bool:
    """Whether Kafka takes the name."""
    return _LEGAL.fullmatch(topic) is not None and topic not in (".", "..")


def why_illegal(topic: str) -> str | None:
    """Why Kafka does not take the name; None for one that it takes."""
    if is_legal(topic):
        return None
    odd = list(dict.fromkeys(re.findall(r"[^A-Za-z0-9._-]", topic, re.ASCII)))
    if odd:
        more = f" and {len(odd) - _NAMED:,} others" if len(odd) > _NAMED else ""
        return (
            f"it has {', '.join(map(repr, odd[:_NAMED]))}{more}; a topic has the letters a to z and A to Z, "
            "digits, dots, underscores and hyphens only"
        )
    if len(topic) > MOST_CHARACTERS:
        return f"it has {len(topic):,} characters, and a topic has {MOST_CHARACTERS} at most"
    return "it is no name"


def mono_topic(stream: str) -> str:
    """Topic of the mono events of ``stream``."""
    return MONO_PREFIX + stream


def control_topic(name: str) -> str:
    """Topic of the control events called ``name``, such as ``difficulty``."""
    return CONTROL_PREFIX + name


def metrics_topic(window: str) -> str:
    """Topic of the results of the window called ``window``."""
    return METRICS_PREFIX + window


def keyed_topic(stream: str, field: str) -> str:
    """Internal topic of ``stream`` repartitioned by ``field``, which is empty where all events come together."""
    if _FIELD.fullmatch(field) is None:  # Kafka takes few characters, and a dot would divide the name elsewhere
        readable = re.sub(r"[^A-Za-z0-9_-]", "_", field, flags=re.ASCII)[:40]
        field = f"{readable}-{sha256(field.encode(errors='surrogatepass')).hexdigest()[:12]}"
    return f"{KEYED_PREFIX}{field}.{stream}"


def state_topic(group: str) -> str:
    """Compacted topic with the snapshots of the domains of ``group``."""
    return f"state.{group}"


def stream_of(topic: str) -> str | None:
    """Stream whose events ``topic`` carries, or None for a topic of another kind."""
    if topic.startswith(MONO_PREFIX):
        return topic[len(MONO_PREFIX) :]
    if topic.startswith(METRICS_PREFIX):
        return topic[len(METRICS_PREFIX) :]
    if topic.startswith(KEYED_PREFIX):
        return topic.split(".", 2)[2]
    return None


def is_derived(topic: str) -> bool:
    """Whether the pipeline itself writes ``topic``: outputs, control, state, window results, repartitioned copies."""
    return topic in _OUTPUTS or topic.startswith(_OUTPUT_PREFIXES)
