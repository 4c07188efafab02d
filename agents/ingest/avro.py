"""Avro in Confluent's wire format: a zero byte, four bytes with the schema's id, and the record in Avro's binary form.

Needs ``fastavro`` (``pip install 'astrocyte[avro]'``). Schemas come from a folder (``<id>.avsc``) or from a registry.
"""

from __future__ import annotations

import io
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from astrocyte.schemas.avro import Bounds
from astrocyte.schemas.contract import Contract
from astrocyte.schemas.errors import InvalidEvent, InvalidSettings, TransientError
from astrocyte.schemas.json.reader import KafkaRecord
from astrocyte.schemas.json.text import loads

__all__ = ["SchemaRegistryUnavailable", "configure"]

_HEADER: Final = 5
_TIMEOUT_S: Final = 10.0


class SchemaRegistryUnavailable(TransientError):
    """The schema registry did not answer; messages wait for it."""


def configure(contract: Contract, options: Mapping[str, Any]) -> Callable[[KafkaRecord], Any]:
    """Decoder of Avro records; options: ``schemas`` (folder) or ``registry`` (address). Raises InvalidSettings."""
    where = f"stream {contract.stream!r}: decoder 'avro'"
    try:
        from fastavro import parse_schema, schemaless_reader
        from fastavro.schema import SchemaParseException
    except ModuleNotFoundError:
        raise InvalidSettings(
            f"{where} needs fastavro, which is not installed; pip install 'astrocyte[avro]'"
        ) from None
    if len(options.keys() & {"schemas", "registry"}) != 1 or len(options) != 1:
        raise InvalidSettings(
            f"{where} has the options {', '.join(options) or 'none'}; expected one of schemas: FOLDER (with <id>.avsc) "
            "and registry: http://HOST:PORT"
        )
    name, place = next(iter(options.items()))
    if name == "schemas" and not Path(place).is_dir():
        raise InvalidSettings(f"{where}: there is no folder {str(place)!r} of schemas")
    if name == "registry" and not re.match(r"https?://", str(place)):
        raise InvalidSettings(f"{where}: registry is {place!r}; expected an address such as http://127.0.0.1:8081")
    fetch = _from_folder if name == "schemas" else _from_registry
    known: dict[int, tuple[Any, Bounds]] = {}

    def decode(record: KafkaRecord) -> Any:
        value = record.value
        if value is None or len(value) < _HEADER or value[0] != 0:
            size = "no value (a tombstone)" if value is None else f"{len(value)} other bytes"
            raise InvalidEvent(f"expected Avro in Confluent's wire format (0x00 and the schema's id), got {size}")
        number = int.from_bytes(value[1:_HEADER], "big")
        if number not in known:
            text = fetch(str(place), number)
            try:
                named: dict[str, Any] = {}
                parsed = parse_schema(loads(text.encode()), named_schemas=named)
                known[number] = (parsed, Bounds(parsed, named))
            except (ValueError, SchemaParseException) as error:
                raise InvalidEvent(f"schema {number} is not an Avro schema: {error}") from error
        schema, bounds = known[number]
        if not bounds.is_closed:
            bounds.check(value, _HEADER)
        stream = io.BytesIO(value[_HEADER:])
        found = schemaless_reader(stream, schema, None)
        rest = len(value) - _HEADER - stream.tell()
        if rest:
            raise InvalidEvent(f"{rest} bytes follow the record of schema {number}; is it the schema of its writer?")
        if not isinstance(found, Mapping):
            raise InvalidEvent(f"expected an Avro record, got a {type(found).__name__}")
        return found

    return decode


def _from_folder(folder: str, number: int) -> str:
    path = Path(folder) / f"{number}.avsc"
    if not path.is_file():
        raise InvalidEvent(f"schema {number} is unknown: there is no file {path.name} in {folder}")
    return path.read_text(encoding="utf-8")


def _from_registry(address: str, number: int) -> str:
    url = f"{address.rstrip('/')}/schemas/ids/{number}"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310  configure admits http and https
            body = json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise InvalidEvent(f"schema {number} is unknown to the registry {address}") from None
        raise SchemaRegistryUnavailable(
            f"schema registry {address} answered {error.code} for schema {number}"
        ) from error
    except (OSError, ValueError) as error:
        raise SchemaRegistryUnavailable(f"schema registry {address} cannot be read: {error}; is it running?") from error
    if body.get("schemaType", "AVRO") != "AVRO":
        raise InvalidEvent(f"schema {number} is of type {body['schemaType']}; expected AVRO")
    return str(body["schema"])
