"""Databases, retention and continuous queries of InfluxDB 1, which has them in place of buckets and tasks.

InfluxQL has no entropy, so that of the traits is left to the window ``diversity_metrics``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from influxdb_client import InfluxDBClient

from astrocyte.agents.sinks.base import SinkError

__all__ = ["CONTINUOUS", "continuous_query", "database_of", "is_version_1", "setup_version_1"]

_DEFAULT_POLICY: Final = "autogen"
"""The retention policy that the server makes with a database."""
_UNITS_S: Final = {"h": 3600, "m": 60, "s": 1}


def _population(source: str, target: str) -> str:
    # The standard deviation as in the task of version 2: the window takes a row as so many as its weight.
    return (
        'SELECT mean("accuracy") AS "mean_accuracy", sum("weight") AS "count_cell_id", '  # noqa: S608  escaped names
        'stddev("energy_reward") * sqrt((1 - 1 / count("energy_reward")) / (1 - 1 / sum("weight"))) AS "stddev_energy" '
        f'INTO {target}."population_stats" '
        f'FROM {source}."problem_solving" GROUP BY time(1m)'
    )


CONTINUOUS: Final = {"astrocyte_population_stats": _population}
"""The query of every continuous query by its name, over the policy that it reads and the one to which it writes."""


def continuous_query(name: str, bucket: str, downsampled: str) -> str:
    """The statement that makes one continuous query; a minute is computed again while late points may come."""
    database, policy = database_of(bucket)
    source = f"{_name(database)}.{_name(policy)}"
    query = CONTINUOUS[name](source, f"{_name(downsampled)}.{_name(_DEFAULT_POLICY)}")
    return f"CREATE CONTINUOUS QUERY {_name(name)} ON {_name(database)} RESAMPLE FOR 2m BEGIN {query} END"


def database_of(bucket: str) -> tuple[str, str]:
    """Database and retention policy that the v2 API takes for a bucket: ``database`` or ``database/policy``."""
    database, _, policy = bucket.partition("/")
    return database, policy or _DEFAULT_POLICY


def is_version_1(client: InfluxDBClient) -> bool:
    """Whether the server is an InfluxDB 1, whose v2 API has no buckets and tasks to set up."""
    return str(client.version()).lstrip("v").startswith("1.")


def setup_version_1(
    client: InfluxDBClient, bucket: str, downsampled: str, raw_s: int
) -> Iterator[tuple[str, str, str]]:
    """Make what is missing and change what differs; yields kind, name, and what was done, of each.

    ``raw_s`` is the retention of the bucket in seconds, 0 for ever. Raises SinkError and the errors of the client.
    """
    for each, seconds in ((bucket, raw_s), (downsampled, 0)):
        database, policy = database_of(each)
        yield "database", each, _database(client, database, policy, seconds)
    database, _ = database_of(bucket)
    rows = _ask(client, "SHOW CONTINUOUS QUERIES", database)
    known = {name: text for name, text in rows if name in CONTINUOUS}
    for name in CONTINUOUS:
        wanted = continuous_query(name, bucket, downsampled)
        done = "made"
        if name in known:
            if _plain(known[name]) == _plain(wanted):
                yield "continuous query", name, "as it should be"
                continue
            _ask(client, f"DROP CONTINUOUS QUERY {_name(name)} ON {_name(database)}")
            done = "changed"
        _ask(client, wanted)
        yield "continuous query", name, done


def _database(client: InfluxDBClient, database: str, policy: str, seconds: int) -> str:
    duration = f"{seconds}s" if seconds else "INF"
    named = f"RETENTION POLICY {_name(policy)} ON {_name(database)}"
    made = [database] not in _ask(client, "SHOW DATABASES")
    if made:
        _ask(client, f"CREATE DATABASE {_name(database)}")
    known = {name: _seconds(text) for name, text, *_ in _ask(client, f"SHOW RETENTION POLICIES ON {_name(database)}")}
    if policy not in known:
        _ask(client, f"CREATE {named} DURATION {duration} REPLICATION 1 DEFAULT")
        return "made"
    if known[policy] == seconds:
        return "made" if made else "as it should be"
    # A shard lasts as long as the policy at most; 0 lets the server choose.
    _ask(client, f"ALTER {named} DURATION {duration} SHARD DURATION 0s")
    return "made" if made else "retention changed"


def _ask(client: InfluxDBClient, statement: str, series: str = "") -> list[Any]:
    """Rows of the answer to one statement, of one series if it is named. Raises SinkError."""
    (result,) = client.api_client.call_api(
        "/query", "POST", query_params=[("q", statement)], header_params={"Accept": "application/json"},
        response_type="object", _return_http_data_only=True,
    )["results"]  # fmt: skip
    if "error" in result:
        raise SinkError(f"InfluxDB answered to {statement}: {result['error']}")
    found = [each for each in result.get("series", ()) if not series or each.get("name") == series]
    return [row for each in found for row in each.get("values", ())]


def _seconds(duration: str) -> int:
    """Seconds of a duration as the server writes it, such as 720h0m0s."""
    return sum(int(number) * _UNITS_S[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))


def _plain(statement: str) -> str:
    """A statement without quotes, which the server leaves away where names need none."""
    return " ".join(statement.replace('"', "").split())


def _name(text: str) -> str:
    """Escape a name for InfluxQL."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
