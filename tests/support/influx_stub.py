"""A strict InfluxDB 2 in the test's own loop: the write API, and the bucket and task API of ``influx setup``.

Points are kept by identity, so that a test sees what was lost, written twice, or has replaced another point.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import re
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from astrocyte.schemas.times import iso_from_us, us_from_iso
from tests.support.line_protocol import Malformed, Point, read_points
from tests.support.threads import in_thread

__all__ = ["TOKEN", "Answer", "InfluxStub", "influx_stub", "influx_thread"]

TOKEN = "the-token"
_RANGE = re.compile(r'from\(bucket: "(?P<bucket>.*)"\) \|> range\(start: (?P<start>\S+), stop: (?P<stop>\S+)\)')
_FLUX = {float: "double", int: "long", bool: "boolean", str: "string"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A fault of the next request. ``applied``: its points are written all the same."""

    what: Literal["status", "cut", "hang"] = "status"
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    applied: bool = False
    said: str = "the stub is set so"


@dataclass(slots=True)
class InfluxStub:
    """The server's state, and the requests that it received."""

    url: str = ""
    token: str = TOKEN
    org: str = "astrocyte"
    bucket: str = "astrocyte"
    most_bytes: int = 25_000_000
    oldest_ns: int = 0
    """Points before it are dropped, as beyond the bucket's retention."""
    points: dict[Any, dict[str, Any]] = field(default_factory=dict)
    replaced: int = 0
    """Points that overwrote a different point of the same identity."""
    answers: deque[Answer] = field(default_factory=deque)
    fault: Answer | None = None
    """Answer of every request while it is set, after those of ``answers``."""
    delay_s: float = 0.0
    """How long each request takes."""
    refusals: int = 0
    """Requests that were answered by a fault, or were too large."""
    requests: list[int] = field(default_factory=list)
    """Lines of each request that could be read."""
    types: dict[tuple[str, str], type] = field(default_factory=dict)
    buckets: dict[str, dict[str, Any]] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    """Requests that changed buckets or tasks."""
    away: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the test ends, so that requests that hang end too."""

    def count(self) -> dict[str, int]:
        """Points by measurement."""
        return dict(Counter(measurement for measurement, _, _ in self.points))

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30)
        app.add_routes(
            [
                web.get("/ping", self._ping),
                web.post("/api/v2/write", self._write),
                web.post("/api/v2/query", self._query),
                web.get("/api/v2/orgs", self._orgs),
                web.get("/api/v2/buckets", self._list_buckets),
                web.post("/api/v2/buckets", self._make_bucket),
                web.patch("/api/v2/buckets/{id}", self._change_bucket),
                web.get("/api/v2/tasks", self._list_tasks),
                web.post("/api/v2/tasks", self._make_task),
                web.patch("/api/v2/tasks/{id}", self._change_task),
            ]
        )
        return app

    def _refused(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") != f"Token {self.token}":
            return _error(401, "unauthorized", "unauthorized access")
        return None

    async def _write(self, request: web.Request) -> web.StreamResponse:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        answer = self.answers.popleft() if self.answers else self.fault
        self.refusals += answer is not None
        response = await self._answer(request) if answer is None or answer.applied else None
        if answer is None:
            assert response is not None
            return response
        if answer.what == "hang":
            await self.away.wait()
        if answer.what != "status":
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError
        return _error(answer.status, "unavailable", answer.said, answer.headers)

    async def _query(self, request: web.Request) -> web.Response:
        """All points of a bucket as annotated CSV, a table for each series and field; other queries are refused."""
        refused = self._refused(request)
        if refused is not None:
            return refused
        flux = str((await request.json())["query"])
        bounds = _RANGE.fullmatch(flux)
        if bounds is None or bounds["bucket"] != self.bucket:
            return _error(400, "invalid", f"the stub answers no query like {flux!r}")
        start_ns, stop_ns = (us_from_iso(bounds[name]) * 1000 for name in ("start", "stop"))
        text = io.StringIO()
        out = csv.writer(text)
        for (measurement, tags, time_ns), fields in self.points.items():
            if not start_ns <= time_ns < stop_ns:
                continue
            time = f"{iso_from_us(time_ns // 1000).removesuffix('Z').partition('.')[0]}.{time_ns % 10**9:09d}Z"
            names = [name for name, _ in tags]
            for name, value in fields.items():
                kind = _FLUX[type(value)]
                out.writerow(["#datatype", "string", "long", "dateTime:RFC3339", kind, *["string"] * (2 + len(names))])
                out.writerow(["", "result", "table", "_time", "_value", "_field", "_measurement", *names])
                shown = str(value).lower() if isinstance(value, bool) else value
                out.writerow(["", "", 0, time, shown, name, measurement, *(each for _, each in tags)])
                text.write("\r\n")
        return web.Response(text=text.getvalue(), content_type="text/csv")

    async def _answer(self, request: web.Request) -> web.Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        if request.query.get("org") != self.org:
            return _error(404, "not found", f'organization name "{request.query.get("org")}" not found')
        if request.query.get("bucket") != self.bucket:
            return _error(404, "not found", f'bucket "{request.query.get("bucket")}" not found')
        if request.query.get("precision", "ns") != "ns":
            return _error(400, "invalid", "the stub stores nanoseconds")
        body = await request.read()
        # aiohttp's server decompresses a body that is marked as gzip; others are plain.
        payload = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        if len(payload) > self.most_bytes:
            self.refusals += 1
            return _error(413, "request too large", "unable to read data: points batch is too large")
        try:
            points = read_points(payload)
            if not points:
                raise Malformed("writing requires points")
        except (Malformed, UnicodeDecodeError) as error:
            return _error(400, "invalid", str(error))
        self.requests.append(len(points))
        return self._store(points)

    def _store(self, points: list[Point]) -> web.Response:
        types = dict(self.types)
        for point in points:
            for name, value in point.fields.items():
                if types.setdefault((point.measurement, name), type(value)) is not type(value):
                    text = f'field type conflict: input field "{name}" on measurement "{point.measurement}" is another'
                    return _error(422, "unprocessable entity", f"partial write: {text} dropped={len(points)}")
        self.types = types
        old = [point for point in points if point.time_ns < self.oldest_ns]
        for point in points:
            if point.time_ns >= self.oldest_ns:
                known = self.points.setdefault(point.identity, point.fields)
                self.replaced += known != point.fields
                known |= point.fields
        if old:
            text = f"partial write: points beyond retention policy dropped={len(old)}"
            return _error(422, "unprocessable entity", f"failure writing points to database: {text}")
        return web.Response(status=204)

    async def _ping(self, request: web.Request) -> web.Response:
        return web.Response(status=204, headers={"X-Influxdb-Version": "v2.7.1"})

    async def _orgs(self, request: web.Request) -> web.Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        if request.query.get("org") != self.org:
            return _error(404, "not found", "organization not found")
        return web.json_response({"orgs": [{"id": "0000000000000001", "name": self.org}]})

    async def _list_buckets(self, request: web.Request) -> web.Response:
        found = self.buckets.get(request.query["name"])
        if found is None:
            return _error(404, "not found", "bucket not found")
        return web.json_response({"buckets": [found]})

    async def _make_bucket(self, request: web.Request) -> web.Response:
        bucket = await request.json()
        bucket["id"] = f"b{len(self.buckets)}"
        self.buckets[bucket["name"]] = bucket
        self.changes.append(f"make bucket {bucket['name']}")
        return web.json_response(bucket, status=201)

    async def _change_bucket(self, request: web.Request) -> web.Response:
        change = await request.json()
        bucket = next(each for each in self.buckets.values() if each["id"] == request.match_info["id"])
        # The server treats an empty list as "no change".
        bucket["retentionRules"] = change.get("retentionRules") or bucket["retentionRules"]
        self.changes.append(f"change bucket {bucket['name']}")
        return web.json_response(bucket)

    async def _list_tasks(self, request: web.Request) -> web.Response:
        found = [task for task in self.tasks.values() if task["name"] == request.query["name"]]
        return web.json_response({"tasks": found})

    async def _make_task(self, request: web.Request) -> web.Response:
        task = await request.json()
        name = task["flux"].split('name: "')[1].split('"')[0]
        task |= {"id": f"t{len(self.tasks)}", "name": name}
        self.tasks[name] = task
        self.changes.append(f"make task {name}")
        return web.json_response(task, status=201)

    async def _change_task(self, request: web.Request) -> web.Response:
        task = next(each for each in self.tasks.values() if each["id"] == request.match_info["id"])
        task |= await request.json()
        self.changes.append(f"change task {task['name']}")
        return web.json_response(task)


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"code": code, "message": message}, status=status, headers=headers)


@asynccontextmanager
async def influx_stub(stub: InfluxStub | None = None, port: int = 0) -> AsyncIterator[InfluxStub]:
    """The stub on a port of 127.0.0.1; ``port`` to start it again where it was before."""
    stub = stub or InfluxStub()
    runner = web.AppRunner(stub.app(), access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    stub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield stub
    finally:
        stub.away.set()
        await runner.cleanup()


def influx_thread() -> AbstractContextManager[InfluxStub]:
    """The stub in a loop of its own, for tests without one."""
    return in_thread(influx_stub())
