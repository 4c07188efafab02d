"""Reading the points of a bucket of InfluxDB 2 (or of 1.8 with Flux), by queries that change nothing."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from influxdb_client import Dialect, InfluxDBClient
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.influx.address import client_arguments, unreachable
from astrocyte.agents.sinks.influx.lines import escape_measurement
from astrocyte.agents.sinks.influx.read_lines import canonical
from astrocyte.schemas.times import iso_from_us, us_from_iso

__all__ = ["BucketReader"]

_FIRST: Final = "1678-01-01T00:00:00Z"
_LAST: Final = "2262-01-01T00:00:00Z"
_TAG: Final = str.maketrans({",": "\\,", "=": "\\=", " ": "\\ "})
"""Not `escape_tag`: what is read has its dot after a final backslash already."""
_OWN: Final = ("", "result", "table")


class BucketReader:
    """Reads ``bucket`` of ``org``. Raises SinkError where the server does not answer, or not to such queries."""

    def __init__(
        self,
        url: str,
        *,
        token: str,
        org: str,
        bucket: str,
        timeout_s: float = 60.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = f"bucket {bucket} at {url}"
        self._url, self._org, self._bucket = url, org, bucket
        self._arguments = client_arguments(url, token=token, org=org, timeout_s=timeout_s, tls=tls)

    def values(self, since_us: int | None = None, until_us: int | None = None) -> Iterator[tuple[str, str, str]]:
        """Key of the point (series and time, as in line protocol), field and `canonical` value of every value."""
        start = _FIRST if since_us is None else iso_from_us(since_us)
        stop = _LAST if until_us is None else iso_from_us(until_us)
        flux = f"from(bucket: {_flux_string(self._bucket)}) |> range(start: {start}, stop: {stop})"
        kinds: dict[str, str] = {}
        names: list[str] = []
        with self._client() as client, _errors(self._url, self._bucket):
            dialect = Dialect(header=True, annotations=["datatype"])
            for row in client.query_api().query_csv(flux, dialect=dialect):
                if not row:
                    names = []
                elif row[0] == "#datatype":
                    types, names = row, []
                elif not names:
                    names = row
                    kinds = dict(zip(names, types, strict=False))
                else:
                    cells = dict(zip(names, row, strict=False))
                    if "error" in cells:
                        raise SinkError(f"InfluxDB at {self._url} answered: {cells['error']}")
                    yield _key(cells), cells["_field"], canonical(kinds["_value"], cells["_value"])

    def retention_s(self) -> int | None:
        """For how many seconds the bucket keeps points; None: for ever, or the token does not let us know."""
        with self._client() as client:
            try:
                found = client.buckets_api().find_bucket_by_name(self._bucket)
            except (ApiException, HTTPError, OSError):
                return None
        rules = getattr(found, "retention_rules", None) or []
        return next((rule.every_seconds for rule in rules if rule.every_seconds), None)

    def _client(self) -> InfluxDBClient:
        return InfluxDBClient(**self._arguments)


@contextmanager
def _errors(url: str, bucket: str) -> Iterator[None]:
    """Within this context errors of the client become a SinkError, which does not show the token."""
    try:
        yield
    except ApiException as error:
        if (refused := unreachable(url, error)) is not None:
            raise refused from None
        body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or "")
        raise SinkError(
            f"InfluxDB at {url} refused to read bucket {bucket!r}: {error.status} {error.reason} {body.strip()[:300]}"
            ". It must answer Flux queries, and the token must be allowed to read"
        ) from None
    except (HTTPError, OSError) as error:
        raise unreachable(url, error) or SinkError(
            f"InfluxDB at {url} cannot be reached: {type(error).__name__}"
        ) from None


def _key(cells: Mapping[str, str]) -> str:
    tags = {name: text for name, text in cells.items() if text and name not in _OWN and not name.startswith("_")}
    series = "".join(f",{name.translate(_TAG)}={text.translate(_TAG)}" for name, text in sorted(tags.items()))
    return f"{escape_measurement(cells['_measurement'])}{series} {_nanoseconds(cells['_time'])}"


def _nanoseconds(text: str) -> int:
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return us_from_iso(f"{whole}Z") * 1_000 + int(fraction.ljust(9, "0"))


def _flux_string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
