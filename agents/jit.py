"""How kernels are compiled: the decorators, a prefetch, and what keeps numba's cache honest.

Reference counts on arrays cost a kernel a factor of four. Kernels allocate nothing and need none, so they are compiled
without (an option private to numba: where it is missing, kernels are slower and nothing else). Helpers are inlined by
LLVM. The cache on disk knows a function by its own file only; here a cached kernel is valid for all files that name
this module and those that they import, since kernels take helpers and constants from one another's files.
"""
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import gc
import logging
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, event
from numba.core.options import DefaultOptions
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

__all__ = ["at", "bits", "inner", "kernel", "outer", "prefetch", "source_digest"]

_log: Final = logging.getLogger(__name__)
_OPTIONS: Final[dict[str, Any]] = {"error_model": "numpy"}
if hasattr(DefaultOptions, "_nrt"):
    _OPTIONS["_nrt"] = False


_IMPORTS: Final = re.compile(r"^from (\S+) import (\((?:[^)]*)\)|[^\n]*)", re.MULTILINE)


def _sources() -> int:
    """Checksum of every file that takes part in kernels: those that name this module, and what these import."""
    package = Path(__file__).parent
    strings = {path: path.read_bytes() for path in sorted(package.rglob("*.py"))}
    taken = {path for path, data in strings.items() if __name__.encode() in data or path == Path(__file__)}
    for path in tuple(taken):
        for module, names in _IMPORTS.findall(strings[path].decode()):
            base = package.parent.joinpath(*module.removeprefix("astrocyte.").split("."))
            taken.add(base.with_suffix(".py"))
            taken.update(base / f"{name}.py" for name in re.findall(r"\w+", names))
    digest = 0
    for path, data in strings.items():
        digest = zlib.crc32(data, digest) if path in taken else digest
    return digest & 0x7FFF_FFFF


_SOURCES: Final = _sources()


_KERNELS: Final[set[Any]] = set()


class _FirstTime(event.Listener):  # type: ignore[misc]
    """Says once that kernels are compiled, and lets the garbage collector rest meanwhile: it takes a tenth of it."""

    def __init__(self) -> None:
        self._said = False
        self._collects = False

    def on_start(self, event: Any) -> None:
        """A kernel was not in the cache (one at a time: numba holds a lock)."""
        if event.data["dispatcher"] in _KERNELS:
            self._collects = gc.isenabled()
            gc.disable()
            if not self._said:
                self._said = True
                _log.warning(
                    "compiling the correlation kernels for this machine, once, about 30 s "
                    "(beforehand: python -m astrocyte.agents.warm)"
                )

    def on_end(self, event: Any) -> None:
        """A kernel is compiled."""
        if event.data["dispatcher"] in _KERNELS and self._collects:
            gc.enable()


event.register("numba:compile", _FirstTime())


def kernel(function: Callable[..., Any]) -> Any:
    """Decorator of a function that Python calls; compiled at its first call, or loaded from the cache."""
    compiled = njit(cache=True, nogil=True, **_OPTIONS)(function)
    _KERNELS.add(compiled)
    index: Any = getattr(compiled._cache, "_cache_file", None)
    if hasattr(index, "_source_stamp"):
        index._source_stamp = (index._source_stamp, _SOURCES)
    return compiled


# Python calls no helper: without the wrappers for that, compiling takes half the time.
_INSIDE: Final = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
inner = njit(forceinline=True, **_INSIDE)
"""Decorator of a helper that kernels call for every row."""
outer = njit(**_INSIDE)
"""Decorator of a helper that is called seldom: compiled once instead of into every place that calls it."""


def source_digest(*_files: str) -> int:
    """Checksum of the kernel sources; the same for all, since numba tells omitted values apart by their type only."""
    return _SOURCES


at: Final = np.uint64
"""An index that is not negative. Of a signed one numba asks the sign at every access: a sixth of a kernel's time."""


@intrinsic
def bits(_context: Any, _value: Any) -> Any:
    """The bits of a float64, as an unsigned integer: also those by which one NaN differs from another."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.uint64(types.float64), generate


@intrinsic
def prefetch(_context: Any, array: Any, _row: Any) -> Any:
    """Hint that row ``row`` of a C-ordered array is wanted soon; never faults."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = make_array(signature.args[0])(context, builder, args[0])
        stride = cgutils.unpack_tuple(builder, found.strides)[0]
        address = builder.add(builder.ptrtoint(found.data, ir.IntType(64)), builder.mul(args[1], stride))
        pointer = builder.inttoptr(address, ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), word, word, word]),
            "llvm.prefetch.p0",
        )
        builder.call(function, [pointer, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate
