"""Buckets, retention and downsampling tasks of InfluxDB 2: what seed 000's continuous queries computed.

Everything is found by name and made or changed only where it differs, so the set-up may be run again at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from influxdb_client import BucketRetentionRules, InfluxDBClient, TaskCreateRequest
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError

from agents.sinks.base import SinkError

__all__ = ["DOWNSAMPLED", "RAW_DAYS", "TASKS", "Change", "setup_influx", "task_flux"]

RAW_DAYS: Final = 30
DOWNSAMPLED: Final = "_downsampled"
"""Suffix of the bucket into which the tasks write; what is in it is kept for ever."""
_BINS: Final = 20


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that was made, changed, or found as it should be."""

    kind: str
    name: str
    done: str


def _population(bucket: str, target: str, org: str) -> str:
    return f"""option task = {{name: "astrocyte_population_stats", every: 1m, offset: 10s}}

results = from(bucket: "{bucket}") |> range(start: -task.every)
  |> filter(fn: (r) => r._measurement == "problem_solving" and r._field == "accuracy") |> group()
vitals = from(bucket: "{bucket}") |> range(start: -task.every)
  |> filter(fn: (r) => r._measurement == "cell_vitals" and r._field == "energy") |> group()

union(tables: [
  results |> mean() |> map(fn: (r) => ({{_field: "mean_accuracy", _value: r._value}})),
  results |> count() |> map(fn: (r) => ({{_field: "count", _value: float(v: r._value)}})),
  vitals |> stddev() |> map(fn: (r) => ({{_field: "stddev_energy", _value: r._value}})),
])
  |> map(fn: (r) => ({{r with _measurement: "population_stats", _time: now()}}))
  |> to(bucket: "{target}", org: "{org}")
"""


def _diversity(bucket: str, target: str, org: str) -> str:
    head = 'import "math"\n\noption task = {name: "astrocyte_diversity", every: 5m, offset: 10s}\n'
    return head + "".join(_entropy(trait, bucket, target, org) for trait in ("metabolism", "tpu_cores"))


def _entropy(trait: str, bucket: str, target: str, org: str) -> str:
    """Shannon entropy (nats) of a trait over equal bins between its least and greatest value."""
    return f"""
{trait} = from(bucket: "{bucket}") |> range(start: -task.every)
  |> filter(fn: (r) => r._measurement == "genome_data" and r._field == "{trait}") |> group()
{trait}_least = ({trait} |> min() |> findRecord(fn: (key) => true, idx: 0))._value
{trait}_most = ({trait} |> max() |> findRecord(fn: (key) => true, idx: 0))._value
{trait}_all = float(v: ({trait} |> count() |> findRecord(fn: (key) => true, idx: 0))._value)
{trait}_width = if {trait}_most > {trait}_least then ({trait}_most - {trait}_least) / {_BINS}.0 else 1.0
{trait}
  |> map(fn: (r) => ({{bin: math.floor(x: (r._value - {trait}_least) / {trait}_width), _value: 1.0}}))
  |> group(columns: ["bin"]) |> sum() |> group()
  |> map(fn: (r) => ({{_value: -(r._value / {trait}_all) * math.log(x: r._value / {trait}_all)}}))
  |> sum()
  |> map(fn: (r) => ({{_measurement: "diversity_metrics", _field: "entropy_{trait}", _value: r._value, _time: now()}}))
  |> to(bucket: "{target}", org: "{org}")
"""


TASKS: Final = {"astrocyte_population_stats": _population, "astrocyte_diversity": _diversity}
"""Flux of every task by its name."""


def task_flux(name: str, bucket: str, org: str) -> str:
    """Text of one task."""
    return TASKS[name](bucket, bucket + DOWNSAMPLED, org)


def setup_influx(
    url: str, *, token: str, org: str, bucket: str, raw_days: float = RAW_DAYS, timeout_s: float = 10.0
) -> Iterator[Change]:
    """Make the buckets and tasks that are absent and mend those that differ, yielding each. Raises SinkError."""
    with InfluxDBClient(url=url, token=token, org=org, timeout=int(timeout_s * 1000)) as client:
        try:
            yield _bucket(client, org, bucket, round(raw_days * 86_400))
            yield _bucket(client, org, bucket + DOWNSAMPLED, 0)
            yield from _tasks(client, org, bucket)
        except ApiException as error:
            what = {401: "the token is not valid; set ASTROCYTE_INFLUX_TOKEN", 404: f"no organisation {org!r}"}
            said = what.get(error.status, str(error.reason))
            raise SinkError(f"InfluxDB at {url} answered {error.status}: {said}") from None
        except (HTTPError, OSError) as error:
            raise SinkError(f"InfluxDB at {url} cannot be reached: {type(error).__name__}") from None


def _bucket(client: Any, org: str, name: str, seconds: int) -> Change:
    api = client.buckets_api()
    rules = [BucketRetentionRules(type="expire", every_seconds=seconds)] if seconds else []
    found = api.find_bucket_by_name(name)
    if found is None:
        api.create_bucket(bucket_name=name, org=org, retention_rules=rules)
        return Change("bucket", name, "made")
    kept = [rule.every_seconds for rule in found.retention_rules or []]
    if kept == [rule.every_seconds for rule in rules]:
        return Change("bucket", name, "as it should be")
    found.retention_rules = rules
    api.update_bucket(found)
    return Change("bucket", name, "retention changed")


def _tasks(client: Any, org: str, bucket: str) -> Iterator[Change]:
    api = client.tasks_api()
    organisation = next(each for each in client.organizations_api().find_organizations() if each.name == org)
    for name in TASKS:
        flux = task_flux(name, bucket, org)
        found = next(iter(api.find_tasks(name=name)), None)
        if found is None:
            api.create_task(task_create_request=TaskCreateRequest(org_id=organisation.id, flux=flux, status="active"))
            yield Change("task", name, "made")
        elif found.flux.strip() != flux.strip():
            found.flux = flux
            api.update_task(found)
            yield Change("task", name, "changed")
        else:
            yield Change("task", name, "as it should be")
