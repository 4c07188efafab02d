"""Reports of what a run of rules over logs did not use, and why; and a file that lists every such event."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import orjson

from astrocyte.agents.domain import DomainOutput
from astrocyte.agents.ingest.overload import left_out_lines
from astrocyte.agents.ingest.unused.counts import line_of
from astrocyte.agents.rules.graph.links import not_led_lines
from astrocyte.pipeline.analysis.offline import OfflineRun
from astrocyte.schemas.contract import Contract, Contracts, read_event
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.registry import did_you_mean
from astrocyte.schemas.topics import MONO_PREFIX, SIMULATIONS, is_derived

__all__ = ["NothingRead", "RejectsFile", "all_refused", "check_read", "refusal_lines", "report_lines"]

_SHOWN: Final = 10
"""Maximum number of topics in one line."""
_LATE_REMEDY: Final = (
    "; --lateness (ASTROCYTE_LATENESS) says how late an event may arrive, and 'astrocyte inspect' what the events need"
)


class NothingRead(AstrocyteError):
    """The logs hold nothing that the rules read, so that no result says anything about the rules."""


def check_read(run: OfflineRun, paths: list[str]) -> None:
    """Raises NothingRead if no message of the logs was of a topic that the rules read."""
    found = run.found
    if any(found.topics.get(topic) for topic in run.inputs):
        return
    where = ", ".join(paths)
    if not found.topics:
        raise NothingRead(f"{where}: no messages; the rules read {_listed(sorted(run.inputs))}")
    held = [f"{topic} ({count:,})" for topic, count in sorted(found.topics.items())]
    hint = next(filter(None, (did_you_mean(topic, _unread_topics(run)) for topic in sorted(run.inputs))), "")
    if found.files:
        hint += "; where a member 'stream' is a field and names no stream, give --stream NAME"
    raise NothingRead(
        f"{where}: nothing was read; it holds the topics {_listed(held)} and the rules read "
        f"{_listed(sorted(run.inputs))}{hint}"
    )


def all_refused(run: OfflineRun) -> str | None:
    """The sentence that every event was refused; None if any was not."""
    totals = run.counters
    if not totals.dead or totals.dead + totals.skipped < totals.received:
        return None
    what = f"all {totals.dead:,} events were" if totals.dead > 1 else "the only event was"
    return f"{what} refused, for the reasons above; no result says anything about the rules"


def _unread_topics(run: OfflineRun) -> list[str]:
    """Topics of the logs that hold messages of others and that the rules do not read."""
    read = {*run.inputs, SIMULATIONS}  # which describes the runs of a log, and is no stream
    return sorted(topic for topic in run.found.topics if topic not in read and not is_derived(topic))


def report_lines(run: OfflineRun) -> list[str]:
    """Sentences on what was not used, each with its count and an example; none if there is nothing to report."""
    lines = [*run.found.doubts, *_unused_lines(run)]
    lines += run.fields.absent(set(run.made))
    lines += run.key_places.apart.values()
    unkeyed = {subject for cause, subject, _, _ in run.unused if cause == "unkeyed"}
    lines += [
        spread.sentence(topic, run.placed_by[topic])
        for topic, spread in run.spread_keys.items()
        if topic not in unkeyed  # of which it was said that keys may be in several partitions
    ]
    lines += [
        f"recognise of decoder {name!r} failed on {count:,} {'message' if count == 1 else 'messages'}, "
        "which it did not read"
        for name, count in run.recognise_failed.items()
    ]
    lines += not_led_lines(run.led)
    lines += left_out_lines(run.left_out)
    unread = _unread_topics(run)
    absent = [topic for topic in sorted(run.inputs) if not run.found.topics.get(topic)]
    for topic in absent:
        reader = run.readers_of(run.inputs[topic])
        lines.append(f"topic {topic}, which {reader} reads, is not in the log{did_you_mean(topic, unread)}")
    # A log often holds more than a rule needs: that is worth a line only where something is missing or misnamed,
    # and for files, in which any member of the name `stream` decides.
    strange = [topic for topic in unread if absent or run.found.files or not topic.startswith(MONO_PREFIX)]
    if strange:
        counted = [f"{topic} ({run.found.topics[topic]:,})" for topic in strange]
        lines.append(f"no rule reads the topics {_listed(counted)}")
    return lines


def refusal_lines(run: OfflineRun) -> list[str]:
    """Sentences on the events that were refused, with their number among all."""
    unused, totals = run.unused, run.counters
    lines = [line for (cause, *_), line in zip(unused, unused.lines(), strict=True) if cause == "dead"]
    return [f"{totals.dead:,} of {totals.received:,} events were refused", *lines] if lines else []


def _unused_lines(run: OfflineRun) -> list[str]:
    """Lines on events; one that is late or repeated in a stream is so in its copies as well, which is said once."""
    return [
        line_of(cause, subject, detail, found) + (_LATE_REMEDY if cause == "late" else "")
        for cause, subject, detail, found in run.unused.once(run.copies)
    ]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "none") + more


class RejectsFile:
    """A file of JSON lines, one for each event or result that was not used: cause, reason, place and the event.

    ``cause`` is dead_letter, late, duplicate or no_key. Raises AstrocyteError if it cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self._written: Counter[tuple[Any, ...]] = Counter()
        """Events that were written, by cause, first place, time and type."""
        self._seen: Counter[tuple[Any, ...]] = Counter()
        """Events that came, by the topic in which they were read and the same."""
        self.count = 0
        try:
            self._file = Path(path).open("wb")  # noqa: SIM115  closed by __exit__
        except OSError as error:
            raise AstrocyteError(f"{path} cannot be written: {error.strerror}") from None

    def write(self, output: DomainOutput, contracts: Contracts) -> None:
        """Write what the output of one step says was not used; ``contracts`` say which member is an event's key."""
        for item in self._items(output, contracts):
            self._file.write(orjson.dumps(item) + b"\n")
            self.count += 1

    def _items(self, output: DomainOutput, contracts: Contracts) -> Iterator[dict[str, Any]]:
        for letter in output.dead_letters:
            yield _of_letter(letter, contracts.of_topic(letter.topic))
        for record in output.late:
            headers = {name: value.decode() for name, value in record.headers if name.startswith(("source_", "late_"))}
            topic = headers.get("source_topic")
            place = (topic, int(headers.get("source_partition", -1)), int(headers.get("source_offset", -1)))
            if self._is_written("late", headers.get("source_copy", topic), place, record.value):
                continue
            yield {
                "cause": "late",
                "reason": "older than the watermark",
                **dict(zip(("topic", "partition", "offset"), place, strict=True)),
                "watermark_us": int(headers.get("late_watermark_us", 0)),
                "key": _text(record.key),
                **_content(record.value),
            }
        for each in output.unused:
            place = (each.topic, each.partition, each.offset)
            if self._is_written(each.cause, each.read, place, each.record.value):
                continue
            yield {
                "cause": each.cause,
                "reason": each.reason,
                "topic": each.topic,
                "partition": each.partition,
                "offset": each.offset,
                "key": _text(each.record.key),
                **_content(each.record.value),
            }

    def _is_written(self, cause: str, read: str | None, place: tuple[Any, ...], value: bytes) -> bool:
        """Whether an event of topic ``read`` was listed: one that is read in a stream and in copies is so once.

        Its id is no part of it, since the copy of an event has another one where its producer gave none. One message
        may hold several events.
        """
        event = orjson.loads(value)
        about = (event.get("timestamp"), event.get("type")) if isinstance(event, dict) else ()
        name = (cause, *place, *about)
        self._seen[read, *name] += 1
        if self._seen[read, *name] <= self._written[name]:
            return True
        self._written[name] += 1
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._file.close()


def _of_letter(letter: DeadLetter, contract: Contract) -> dict[str, Any]:
    item: dict[str, Any] = {
        "cause": "dead_letter",
        "stage": letter.stage,
        "reason": letter.reason,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "row": letter.row,
        "letter_id": letter.letter_id,
        "key": None if letter.key_b64 is None else _text(b64decode(letter.key_b64)),
    }
    item |= {"event": None} if letter.payload_b64 is None else _content(b64decode(letter.payload_b64))
    if item["key"] is None and isinstance(item.get("event"), dict):
        item["key"] = _key_inside(item["event"], contract)
    return item


def _key_inside(body: dict[str, Any], contract: Contract) -> str | None:
    """The key that a refused event holds itself; nothing else of the event has to be right."""
    declaration = contract.declaration
    if declaration is not None:
        contract = replace(contract, declaration=declaration.model_copy(update={"time": None, "id": None}))
    try:
        return read_event(body, contract).key
    except (AstrocyteError, TypeError, ValueError):
        return None


def _content(value: bytes) -> dict[str, Any]:
    """The event of a message; its bytes where it is not JSON, or nested more deeply than a line of this file can be."""
    try:
        content = {"event": orjson.loads(value)}
        orjson.dumps(content)
    except (orjson.JSONDecodeError, TypeError):
        return {"payload_b64": b64encode(value).decode()}
    return content


def _text(data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return b64encode(data).decode()
