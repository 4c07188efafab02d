"""Compilation of kernels: decorators, a prefetch intrinsic, and a checked cache on disk.

Reference counting of arrays makes a kernel four times slower. Kernels allocate nothing and do not need it, so they are
compiled without it (a private option of numba: if it is missing, kernels are slower and otherwise the same). LLVM
inlines the helpers. numba's cache checks only the file of the function itself; here a cached kernel also depends on all
files that import this module and on those that they import, since kernels use helpers and constants of other files.
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

__all__ = ["at", "bits", "inner", "kernel", "loop", "outer", "prefetch"]

_log: Final = logging.getLogger(__name__)
_OPTIONS: Final[dict[str, Any]] = {"error_model": "numpy"}
if hasattr(DefaultOptions, "_nrt"):
    _OPTIONS["_nrt"] = False


_IMPORTS: Final = re.compile(r"^from (\S+) import (\((?:[^)]*)\)|[^\n]*)", re.MULTILINE)


def _sources() -> int:
    """Checksum of every file that kernels depend on: those that import this module, and the files that they import."""
    package = Path(__file__).parent
    sources = {path: path.read_bytes() for path in sorted(package.rglob("*.py"))}
    taken = {path for path, data in sources.items() if __name__.encode() in data or path == Path(__file__)}
    for path in tuple(taken):
        for module, names in _IMPORTS.findall(sources[path].decode()):
            base = package.parent.joinpath(*module.removeprefix("astrocyte.").split("."))
            taken.add(base.with_suffix(".py"))
            taken.update(base / f"{name}.py" for name in re.findall(r"\w+", names))
    digest = 0
    for path, data in sources.items():
        digest = zlib.crc32(data, digest) if path in taken else digest
    return digest & 0x7FFF_FFFF


_SOURCES: Final = _sources()


_KERNELS: Final[set[Any]] = set()


class _CompileListener(event.Listener):  # type: ignore[misc]
    """Logs the first compilation, and disables garbage collection during each: it would take a tenth of the time."""

    def __init__(self) -> None:
        self._logged = False
        self._collects = False

    def on_start(self, event: Any) -> None:
        """Compilation starts: the kernel was not in the cache (one at a time, numba holds a lock)."""
        if event.data["dispatcher"] in _KERNELS:
            self._collects = gc.isenabled()
            gc.disable()
            if not self._logged:
                self._logged = True
                _log.warning(
                    "compiling correlation kernels for this machine, about 30 s, the first time that rules need them "
                    "(to compile all in advance: python -m astrocyte.agents.warm)"
                )

    def on_end(self, event: Any) -> None:
        """Compilation of a kernel ends."""
        if event.data["dispatcher"] in _KERNELS and self._collects:
            gc.enable()


event.register("numba:compile", _CompileListener())


def kernel(function: Callable[..., Any]) -> Any:
    """Decorator of a function that Python calls; compiled at its first call, or loaded from the cache."""
    compiled = njit(cache=True, nogil=True, **_OPTIONS)(function)
    _KERNELS.add(compiled)
    return _stamped(compiled)


def loop(function: Callable[..., Any]) -> Any:
    """Decorator of a function that may allocate arrays, called by Python or by others of its kind; cached likewise."""
    return _stamped(njit(cache=True, nogil=True, error_model="numpy")(function))


def _stamped(compiled: Any) -> Any:
    """Make the cache entry valid for the present kernel sources only."""
    index: Any = getattr(compiled._cache, "_cache_file", None)
    if hasattr(index, "_source_stamp"):
        index._source_stamp = (index._source_stamp, _SOURCES)
    return compiled


# Python does not call helpers: without the wrappers for such calls, compilation takes half the time.
_INSIDE: Final = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
inner = njit(forceinline=True, **_INSIDE)
"""Decorator of a helper that kernels call for every row."""
outer = njit(**_INSIDE)
"""Decorator of a helper that is called rarely: compiled once instead of inlined at every call."""


at: Final = np.uint64
"""A non-negative index. For a signed index numba checks the sign at every access: a sixth of a kernel's time."""


@intrinsic
def bits(_context: Any, _value: Any) -> Any:
    """The bits of a float64 as an unsigned integer, including the payload of a NaN."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.uint64(types.float64), generate


@intrinsic
def prefetch(_context: Any, array: Any, _row: Any) -> Any:
    """Prefetch row ``row`` of a C-ordered array; never faults."""

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
