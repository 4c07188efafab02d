"""Columns of Parquet files with integers of more than 64 bits, which Arrow's reader refuses without their names."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["wide_integers"]

_MAGIC: Final = b"PAR1"
_END: Final = 8
"""Bytes of a Parquet file after its metadata: their length, and the magic."""
_ARROW: Final = b"ARROW:schema"
_UNREAD: Final = b"unread" + _ARROW[6:]
"""As long as the name of the entry that holds the Arrow schema, and no name that a reader looks for."""
_WIDE: Final = 16
"""Bytes of an integer of 128 bits."""


def wide_integers(path: str | Path) -> str | None:
    """What is wrong with a file that has such columns, and what to do; None if no column is one of them.

    They are values of 16 bytes of which only the Arrow schema, written beside Parquet's own, says that they are
    integers, so that Parquet's own schema is read here without it.
    """
    with Path(path).open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - _END))
        length = int.from_bytes(file.read(4), "little")
        if not 0 < length <= size - _END:
            return None
        file.seek(size - _END - length)
        footer = file.read(length)
    if _ARROW not in footer:
        return None
    alone = _MAGIC + footer.replace(_ARROW, _UNREAD) + length.to_bytes(4, "little") + _MAGIC
    try:
        schema = pq.read_metadata(pa.BufferReader(alone)).schema
    except pa.ArrowException:
        return None
    columns = [schema.column(number) for number in range(len(schema.names))]
    names = [
        column.path
        for column in columns
        if column.physical_type == "FIXED_LEN_BYTE_ARRAY"
        and column.length == _WIDE
        and column.logical_type.type == "NONE"
    ]
    if not names:
        return None
    listed = ", ".join(map(repr, names))
    return (
        f"column {listed} holds integers of more than 64 bits (Int128), which cannot be read; write "
        f"{'it' if len(names) == 1 else 'each'} as decimals, which keep all digits, or as Int64, such as "
        f"pl.col({names[0]!r}).cast(pl.Decimal(38, 0)) in Polars"
    )
