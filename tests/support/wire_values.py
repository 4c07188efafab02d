"""Random values of Kafka's messages, for tests against another codec and against the broker's handlers."""

from __future__ import annotations

import random

from astrocyte.pipeline.broker.protocol.errors import ErrorCode
from astrocyte.pipeline.broker.protocol.schema import BOOL, INT8, INT16, INT32, INT64, Array, Struct, WireType

__all__ = ["value_of"]


def value_of(kind: WireType, rng: random.Random, name: str = "") -> object:
    """A value of a wire type; numbers stay within what their names can mean, where a strict codec insists."""
    if isinstance(kind, Struct):
        return {field.name: value_of(field.type, rng, field.name) for field in kind.fields}
    if isinstance(kind, Array):
        if kind.nullable and rng.random() < 0.2:
            return None
        return [value_of(kind.of, rng, name) for _ in range(rng.randrange(4))]
    if name == "error_code":
        return rng.choice([int(code) for code in ErrorCode])
    if kind is BOOL:
        return rng.random() < 0.5
    if kind in (INT8, INT16, INT32, INT64):
        if name.endswith("_ms"):
            return rng.randrange(0, 1 << 31)
        if name in ("resource_type", "config_source", "source", "key_type", "isolation_level"):
            return rng.randrange(2)
        bits = {INT8: 7, INT16: 15, INT32: 31, INT64: 63}[kind]
        return rng.randrange(-(1 << bits), 1 << bits)
    text = "".join(rng.choice("aZ9._-é€") for _ in range(rng.randrange(12)))
    if type(kind).__name__ == "_Bytes":
        return text.encode()
    return None if getattr(kind, "nullable", False) and rng.random() < 0.3 else text
