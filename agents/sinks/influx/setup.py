"""Buckets, retention and downsampling tasks of InfluxDB 2; what InfluxDB 1 has instead is in `continuous`.

Objects are found by name, and created or changed only if they differ, so the set-up may be repeated at any time.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from influxdb_client import BucketRetentionRules, InfluxDBClient, TaskCreateRequest, TaskUpdateRequest
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.influx.address import check_address, unreachable
from astrocyte.agents.sinks.influx.continuous import database_of, is_version_1, setup_version_1

__all__ = ["DOWNSAMPLED", "RAW_DAYS", "TASKS", "Change", "setup_influx", "task_flux"]

RAW_DAYS: Final = 30
DOWNSAMPLED: Final = "_downsampled"
"""Suffix of the bucket to which the tasks write; its points are kept for ever."""
_DAY_S: Final = 86_400
_BINS: Final = 32
"""Number of bins; the same as for the aggregate ``entropy`` of windows."""


@dataclass(frozen=True, slots=True)
class Change:
    """One bucket or task, database or continuous query, that was created, changed, or found up to date."""

    kind: str
    name: str
    done: str


def _population(bucket: str, target: str, org: str) -> str:
    """Flux equivalent of the window ``population_stats`` of the rules for cells: per minute, from problem_solving.

    The window takes a sampled row as so many equal ones as its weight. So the task sums the weights of the n rows to a
    total w, and multiplies the standard deviation of the rows by the root of (1 - 1 / n) / (1 - 1 / w).
    """
    return f"""import "math"

option task = {{name: "astrocyte_population_stats", every: 1m, offset: 10s}}

results = (field) => from(bucket: "{bucket}")
  |> range(start: -task.every)
  |> filter(fn: (r) => r._measurement == "problem_solving" and r._field == field)
  |> group()

counts = results(field: "energy_reward") |> count() |> findColumn(fn: (key) => true, column: "_value")
totals = results(field: "weight") |> sum() |> findColumn(fn: (key) => true, column: "_value")
n = if length(arr: counts) > 0 then float(v: counts[0]) else 0.0
w = if length(arr: totals) > 0 then totals[0] else 0.0
scale = if n > 1.0 and w > 1.0 then math.sqrt(x: (1.0 - 1.0 / n) / (1.0 - 1.0 / w)) else 1.0

union(tables: [
  results(field: "accuracy") |> mean() |> map(fn: (r) => ({{_field: "mean_accuracy", _value: r._value}})),
  results(field: "weight") |> sum() |> map(fn: (r) => ({{_field: "count_cell_id", _value: r._value}})),
  results(field: "energy_reward") |> stddev()
    |> map(fn: (r) => ({{_field: "stddev_energy", _value: r._value * scale}})),
])
  |> map(fn: (r) => ({{r with _measurement: "population_stats", _time: now()}}))
  |> to(bucket: "{target}", org: "{org}")
"""


def _diversity(bucket: str, target: str, org: str) -> str:
    """Flux equivalent of the window ``diversity_metrics`` of the rules for cells: per 5 minutes, from genome_data."""
    head = 'import "math"\n\noption task = {name: "astrocyte_diversity", every: 5m, offset: 10s}\n'
    return head + "".join(_entropy(trait, bucket, target, org) for trait in ("metabolism", "tpu_cores"))


def _entropy(trait: str, bucket: str, target: str, org: str) -> str:
    """Shannon entropy in nats, ln n - sum(c ln c) / n over the counts c of equal bins between minimum and maximum.

    A window without data writes nothing, so the bounds are read from columns that may be empty.
    """
    return f"""
{trait} = from(bucket: "{bucket}")
  |> range(start: -task.every)
  |> filter(fn: (r) => r._measurement == "genome_data" and r._field == "{trait}")
  |> group()
  |> keep(columns: ["_value"])
{trait}_lows = {trait} |> min() |> findColumn(fn: (key) => true, column: "_value")
{trait}_highs = {trait} |> max() |> findColumn(fn: (key) => true, column: "_value")
{trait}_low = if length(arr: {trait}_lows) > 0 then {trait}_lows[0] else 0.0
{trait}_high = if length(arr: {trait}_highs) > 0 then {trait}_highs[0] else 0.0
{trait}_width = if {trait}_high > {trait}_low then ({trait}_high - {trait}_low) / {_BINS}.0 else 1.0

{trait}
  |> map(fn: (r) => ({{place: int(v: (r._value - {trait}_low) / {trait}_width), _value: r._value}}))
  |> map(fn: (r) => ({{bin: if r.place > {_BINS - 1} then {_BINS - 1} else r.place, _value: r._value}}))
  |> group(columns: ["bin"])
  |> count()
  |> group()
  |> map(fn: (r) => ({{_value: float(v: r._value)}}))
  |> reduce(
    identity: {{n: 0.0, s: 0.0}},
    fn: (r, accumulator) => ({{
      n: accumulator.n + r._value,
      s: accumulator.s + r._value * math.log(x: r._value),
    }}),
  )
  |> map(fn: (r) => ({{
    _measurement: "diversity_metrics",
    _field: "entropy_{trait}",
    _value: math.log(x: r.n) - r.s / r.n,
    _time: now(),
  }}))
  |> to(bucket: "{target}", org: "{org}")
"""


TASKS: Final = {"astrocyte_population_stats": _population, "astrocyte_diversity": _diversity}
"""Flux of every task by its name."""


def task_flux(name: str, bucket: str, org: str) -> str:
    """Flux source of one task."""
    return TASKS[name](_text(bucket), _text(bucket + DOWNSAMPLED), _text(org))


def _text(value: str) -> str:
    """Escape a value for a Flux string literal."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")


def setup_influx(
    url: str,
    *,
    token: str,
    org: str,
    bucket: str,
    raw_days: float = RAW_DAYS,
    timeout_s: float = 10.0,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Change]:
    """Create missing buckets and tasks and update those that differ, yielding each. Raises SinkError.

    Of an InfluxDB 1 these are databases and continuous queries, and ``org`` is not used.

    ``raw_days`` is the retention of raw points in days; 0 keeps them for ever.
    """
    check_address(url)
    with InfluxDBClient(url=url, token=token, org=org, timeout=int(timeout_s * 1000), ssl_context=tls) as client:
        try:
            if is_version_1(client):
                made = setup_version_1(client, bucket, database_of(bucket)[0] + DOWNSAMPLED, round(raw_days * _DAY_S))
                yield from (Change(*each) for each in made)
                return
            org_id = _organisation(client, org)
            yield _bucket(client, org_id, bucket, round(raw_days * _DAY_S))
            yield _bucket(client, org_id, bucket + DOWNSAMPLED, 0)
            for name in TASKS:
                yield _task(client, org_id, name, task_flux(name, bucket, org))
        except ApiException as error:
            if (refused := unreachable(url, error)) is not None:
                raise refused from None
            what = {
                401: "the token is not valid; set ASTROCYTE_INFLUX_TOKEN",
                403: "the token may not create buckets and tasks; expected an operator or all-access token",
                404: f"there is no organisation {org!r}, or this is not InfluxDB 2; set ASTROCYTE_INFLUX_ORG",
            }
            said = what.get(error.status, str(error.body or error.reason).strip()[:300])
            raise SinkError(f"InfluxDB at {url} answered {error.status}: {said}") from None
        except (HTTPError, OSError) as error:
            raise unreachable(url, error) or SinkError(
                f"InfluxDB at {url} cannot be reached ({type(error).__name__}); is it running, and the address correct?"
            ) from None


def _organisation(client: Any, name: str) -> str:
    for each in client.organizations_api().find_organizations(org=name):
        if each.name == name:
            return str(each.id)
    raise SinkError(f"InfluxDB has no organisation {name!r}; set ASTROCYTE_INFLUX_ORG to one that it has")


def _bucket(client: Any, org_id: str, name: str, seconds: int) -> Change:
    api = client.buckets_api()
    # A rule of 0 seconds means for ever; an empty list would not change an existing bucket.
    rule = BucketRetentionRules(type="expire", every_seconds=seconds)
    found = _find_bucket(api, org_id, name)
    if found is None:
        api.create_bucket(bucket_name=name, org=org_id, retention_rules=[rule])
        return Change("bucket", name, "made")
    if sum(each.every_seconds for each in found.retention_rules or []) == seconds:
        return Change("bucket", name, "as it should be")
    found.retention_rules = [rule]
    api.update_bucket(found)
    return Change("bucket", name, "retention changed")


def _find_bucket(api: Any, org_id: str, name: str) -> Any:
    try:
        found = api.find_buckets(name=name, org_id=org_id).buckets
    except ApiException as error:
        if error.status == 404:
            return None
        raise
    return next((bucket for bucket in found if bucket.name == name), None)


def _task(client: Any, org_id: str, name: str, flux: str) -> Change:
    api = client.tasks_api()
    found = next((task for task in api.find_tasks(name=name, org_id=org_id) if task.name == name), None)
    if found is None:
        api.create_task(task_create_request=TaskCreateRequest(org_id=org_id, flux=flux, status="active"))
        return Change("task", name, "made")
    if found.flux.strip() == flux.strip() and found.status == "active":
        return Change("task", name, "as it should be")
    # Only the Flux source: options of the old task in the request would override those in the source.
    api.update_task_request(found.id, TaskUpdateRequest(flux=flux, status="active"))
    return Change("task", name, "changed")
