"""The commands over logs, run in this process, and small logs for them."""

from pathlib import Path

import orjson
from typer.testing import CliRunner

from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.kafka.record import ConsumedRecord
from tests.support.logs import write_log


def run(*arguments: str):
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def event(offset: int, topic: str = "mono.A", **fields: object) -> ConsumedRecord:
    body = {"timestamp": f"2026-03-01T10:00:{offset:02}Z"} | fields
    return ConsumedRecord(topic, 0, offset, 1_772_359_200_000, b"k", orjson.dumps(body))


def files(folder: Path, rules: str, *records: ConsumedRecord) -> list[str]:
    path = folder / "rules.yaml"
    path.write_text(rules)
    return [str(path), str(write_log(folder / "log.jsonl", records, partitions=1))]


HIGH = 'rules: [{name: high, seq: [{as: a, stream: A, where: "value > 3"}]}]'


def lines(result) -> list[str]:
    return result.stderr.splitlines()
