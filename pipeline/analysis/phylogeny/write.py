"""Files of phylogenies: CSV of the ALife data standard, Newick, Parquet and Arrow.

Text is joined column by column in blocks of rows, so that there is no Python object for each row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astrocyte.pipeline.analysis.phylogeny.loops import add_to_ancestors, postorder
from astrocyte.pipeline.analysis.phylogeny.records import Ints
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["LENGTHS", "Length", "csv_blocks", "form_of", "newick_blocks", "write_file"]

Length = Literal["time", "generation"]
LENGTHS: Final[tuple[Length, ...]] = ("time", "generation")
"""Units of branches: seconds of event time from birth to birth, or generations."""

_BLOCK: Final = 100_000
_FORMS: Final = {
    ".csv": "csv", ".nwk": "newick", ".newick": "newick", ".parquet": "parquet", ".arrow": "arrow",
}  # fmt: skip


def form_of(path: Path) -> str:
    """Form of a file by its suffix. Raises InvalidSettings."""
    if path.suffix.lower() not in _FORMS:
        raise InvalidSettings(f"{path}: expected a name that ends with {', '.join(_FORMS)}, got {path.suffix!r}")
    return _FORMS[path.suffix.lower()]


def write_file(path: Path, blocks: Iterable[bytes] | pa.Table) -> None:
    """Write text, or a table in the form of the suffix; a file of that name is replaced once the new one is complete.

    Raises InvalidSettings.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            if isinstance(blocks, pa.Table):
                _write_table(blocks, form_of(path), file)
            else:
                file.writelines(blocks)
        partial.replace(path)
    except OSError as error:
        raise InvalidSettings(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            partial.unlink()


def _write_table(table: pa.Table, form: str, file: IO[bytes]) -> None:
    if form == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(table, file)
        return
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def csv_blocks(table: pa.Table) -> Iterator[bytes]:
    """A phylogeny's table as CSV, block by block: ``[none]`` for founders, ``inf`` as the end of the living."""
    yield (",".join(table.column_names) + "\n").encode()
    as_text: dict[str, Callable[[pa.Array], pa.Array]] = {
        "ancestor_list": _ancestor_list,
        "destruction_time": lambda column: pc.fill_null(pc.cast(column, pa.utf8()), "inf"),
        "simulation_id": lambda column: _quoted(pc.cast(column, pa.utf8())),
    }
    for batch in table.to_batches(_BLOCK):
        columns = [
            as_text[name](column) if name in as_text else pc.fill_null(pc.cast(column, pa.utf8()), "")
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        ]
        yield _joined([*_between(columns, ","), "\n"])


def _between(columns: list[Any], separator: str) -> list[Any]:
    return [part for column in columns for part in (separator, column)][1:]


def _ancestor_list(column: pa.Array) -> pa.Array:
    strings = pc.cast(column, pa.list_(pa.utf8()))
    inside = pc.binary_join(strings, ",")
    count = pc.list_value_length(column)
    quote = pc.if_else(pc.greater(count, 1), '"', "")  # a comma inside
    inside = pc.if_else(pc.equal(count, 0), "none", inside)
    return pc.binary_join_element_wise(quote, "[", inside, "]", quote, "")


def _quoted(column: pa.Array) -> pa.Array:
    doubled = pc.binary_join_element_wise('"', pc.replace_substring(column, '"', '""'), '"', "")
    return pc.if_else(pc.match_substring_regex(column, '[",\r\n]'), doubled, column)


def newick_blocks(ids: Ints, parent: Ints, lengths: Ints, unit: Length) -> Iterator[bytes]:
    """A forest as Newick text, block by block: one tree a line for each founder, every row with its id as label.

    ``parent`` holds the row of each row's parent, which comes before it, or -1; ``lengths`` those of the branches to
    it, in microseconds for the unit ``time``, which are written in seconds.
    """
    n = len(ids)
    sizes = add_to_ancestors(parent, np.ones(n, np.int64))
    starts = postorder(parent, sizes)
    at = np.empty(n, np.int64)  # the row at each position of the postorder
    at[starts + sizes - 1] = np.arange(n)
    opens = np.bincount(starts[sizes > 1], minlength=n)  # subtrees with more than one member that begin there
    begins_tree = np.zeros(n, np.bool_)
    begins_tree[starts[parent < 0]] = True
    for begin in range(0, n, _BLOCK):
        rows, here = at[begin : begin + _BLOCK], slice(begin, begin + _BLOCK)
        leaf, founder = sizes[rows] == 1, pa.array(parent[rows] < 0)
        # A leaf follows a finished subtree or begins a tree; any other node closes the subtree before it.
        comma = pc.if_else(pa.array(leaf & ~begins_tree[here]), ",", "")
        opening = pc.binary_repeat(pa.array(["("] * len(rows)), pa.array(opens[here]))
        closing = pc.if_else(pa.array(leaf), "", ")")
        branch = pc.binary_join_element_wise(":", _text(lengths[rows], unit), "")
        after = pc.if_else(founder, ";\n", branch)
        yield _joined([comma, opening, closing, pc.cast(pa.array(ids[rows]), pa.utf8()), after])


def _text(lengths: NDArray[np.int64], unit: Length) -> pa.Array:
    """Generations as they are, microseconds as the exact decimal of seconds."""
    if unit == "generation":
        return pc.cast(pa.array(lengths), pa.utf8())
    whole = pc.cast(pa.array(lengths // 1_000_000), pa.utf8())
    part = pc.utf8_lpad(pc.cast(pa.array(lengths % 1_000_000), pa.utf8()), 6, "0")
    return pc.utf8_rtrim(pc.utf8_rtrim(pc.binary_join_element_wise(whole, part, "."), "0"), ".")


def _joined(parts: list[Any]) -> bytes:
    """The text of the rows, one after the other: the parts of each in this order."""
    rows = pc.cast(pc.binary_join_element_wise(*parts, ""), pa.large_utf8())
    _, offsets, data = rows.buffers()
    ends = np.frombuffer(offsets, np.int64)[rows.offset : rows.offset + len(rows) + 1]
    return memoryview(data)[int(ends[0]) : int(ends[-1])].tobytes() if data is not None else b""
