"""Sinks by name. ``astrocyte worker --role NAME`` runs a registered one in a consumer group of its own.

::

    def make(context: SinkContext) -> Sink:
        return WebhookSink(context.require("url"), retry=context.retry)

    register_sink("webhook", make, streams=(), records=("alerts",))

Its settings are the environment variables ``ASTROCYTE_<NAME>_*``, which override the table ``[options.<name>]`` of
``astrocyte.toml``: ``ASTROCYTE_WEBHOOK_URL`` is ``context.settings["url"]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from astrocyte.agents.sinks.base import RECORD_KINDS, RecordKind, Sink, check_made, contract_fault
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings, plugin_raised
from astrocyte.schemas.registry import Registry, described, did_you_mean, takes

__all__ = ["SINKS", "SinkContext", "SinkType", "register_sink"]

SHIPPED: Final = ("sql", "influx", "audit", "file", "webhook", "alertmanager")
_MOST_LETTERS: Final = 32
"""Longest name: it is the stage of dead letters for rejected rows, a column of 32 characters in the SQL tables."""


@dataclass(frozen=True, slots=True)
class SinkContext:
    """Arguments of a sink's factory."""

    name: str
    settings: Mapping[str, Any]
    """Settings of this sink by lower-case name; those from the environment are text."""
    retry: RetryPolicy
    """Retry policy for an unavailable store: retries for ever, reports each attempt, ends when the role stops."""
    now_us: Callable[[], int]
    """Wall clock in microseconds since 1970 (UTC), for columns such as ``recorded_at``."""
    common: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the process by name, such as ``sql_url`` and ``experiment``."""

    def require(self, setting: str) -> Any:
        """The value of a required setting. Raises InvalidSettings if it is not set."""
        value = self.settings.get(setting)
        if value is None:
            variable = f"ASTROCYTE_{self.name}_{setting}".replace("-", "_").replace(".", "_").upper()
            raise InvalidSettings(
                f"sink {self.name!r} needs the setting {setting!r}; set {variable}, or {setting} in the table "
                f"[options.{self.name}] of astrocyte.toml"
            )
        return value


@dataclass(frozen=True, slots=True)
class SinkType:
    """A kind of sink: its factory, and what it reads."""

    definition: Callable[[SinkContext], Sink]
    streams: Iterable[str] | Callable[[], Iterable[str]] | None = None
    """Streams that it reads; None: those of the setting ``streams``, by default all of the catalog."""
    records: tuple[RecordKind, ...] | None = None
    """Kinds of records that it reads: multi_events, alerts, dead_letters, simulations; None: all."""
    windows: bool = False
    """Whether it reads the results of the windows in force, of rule files and of published rules."""
    audited: bool = False
    """Whether it reads rule changes and control messages, as records of the kind ``audit``."""
    batch_rows: int = 20_000
    """Number of rows after which a batch is written; it is written earlier when its time limit is reached."""
    upkeep: Callable[[SinkContext], object] | None = None
    """Called in a thread every ``retention_interval``, for maintenance of the store, such as retention."""
    own_streams: Callable[[], Iterable[str]] | None = None
    """With ``streams`` None: streams beside those of the catalog for which it has a place, such as a table."""
    unstored: Callable[[str], str | None] | None = None
    """With ``streams`` None: why it writes nothing of a stream; None of one that it writes. Default: it writes all."""

    def make(self, context: SinkContext) -> Sink:
        """The sink that the factory makes. Raises PluginError for one that raises, or makes anything else."""
        try:
            sink = self.definition(context)
        except AstrocyteError:
            raise
        except (Exception, SystemExit) as error:
            raise plugin_raised(f"making the sink {context.name!r}", error) from error
        check_made(context.name, sink)
        return sink


def _names(name: str, what: str, given: Iterable[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    if names == [given] or not all(isinstance(each, str) for each in names):
        example = f"{what}=({given!r},)" if isinstance(given, str) else f'{what}=("alerts",)'
        raise InvalidSettings(f"sink {name!r}: {what} is {given!r:.100}; expected several names, such as {example}")
    return tuple(names)


def _convert(name: str, found: Any) -> SinkType:
    if len(name) > _MOST_LETTERS:
        raise InvalidSettings(f"sink name {name!r} has {len(name)} characters; expected at most {_MOST_LETTERS}")
    kind = found if isinstance(found, SinkType) else SinkType(found)
    if not takes(kind.definition, 1):
        raise InvalidSettings(
            f"sink {name!r}: expected a function or class that makes a sink from a SinkContext, "
            f"got {described(kind.definition)}"
        )
    if isinstance(kind.definition, type) and (fault := contract_fault(name, kind.definition)):
        raise InvalidSettings(fault)
    if not callable(kind.streams):
        _names(name, "streams", kind.streams)
    for each in _names(name, "records", kind.records) or ():
        if each not in RECORD_KINDS:
            known = f"{', '.join(RECORD_KINDS)}{did_you_mean(each, RECORD_KINDS)}"
            raise InvalidSettings(f"sink {name!r} reads records of the kind {each!r}; known: {known}")
    if isinstance(kind.batch_rows, bool) or not isinstance(kind.batch_rows, int) or kind.batch_rows < 1:
        raise InvalidSettings(f"sink {name!r}: batch_rows is {kind.batch_rows!r}; expected a whole number from 1 on")
    return kind


SINKS: Final[Registry[SinkType]] = Registry(
    "sink",
    group="astrocyte.sinks",
    shipped={name: f"astrocyte.agents.sinks.shipped:{name.upper()}" for name in SHIPPED},
    convert=_convert,
)
"""Kinds of sinks by name."""


def register_sink(
    name: str,
    factory: Callable[[SinkContext], Sink],
    *,
    streams: Iterable[str] | None = None,
    records: Iterable[RecordKind] | None = None,
    windows: bool = False,
    batch_rows: int = 20_000,
) -> None:
    """Register a kind of sink by name, which makes it a role that a worker can run.

    ``factory`` takes a `SinkContext`. ``streams`` and ``records`` select what it reads: None is everything, an empty
    tuple nothing. Raises InvalidSettings.
    """
    SINKS.register(
        name,
        SinkType(
            factory,
            streams=_names(name, "streams", streams),
            records=cast("tuple[RecordKind, ...] | None", _names(name, "records", records)),
            windows=windows,
            batch_rows=batch_rows,
        ),
    )
