"""How kernels are compiled: the decorators, a prefetch, and what keeps numba's cache honest.

Reference counts on arrays cost a kernel a factor of four. Kernels allocate nothing and need none, so they are compiled
without (an option private to numba: where it is missing, kernels are slower and nothing else). Helpers are inlined by
LLVM. The cache on disk knows a function by its own file only: a kernel whose helpers stand in other files takes
`source_digest` of these as the default of a last parameter, which enters its signature. Helpers are not cached by
themselves, since they would not notice a change of what they call.
"""
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, Final

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.options import DefaultOptions
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

__all__ = ["inner", "kernel", "outer", "prefetch", "source_digest"]

_OPTIONS: Final[dict[str, Any]] = {"error_model": "numpy"}
if hasattr(DefaultOptions, "_nrt"):
    _OPTIONS["_nrt"] = False

kernel = njit(cache=True, nogil=True, **_OPTIONS)
"""Decorator of a function that Python calls."""
# Python calls no helper: without the wrappers for that, compiling takes half the time.
_INSIDE: Final = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
inner = njit(forceinline=True, **_INSIDE)
"""Decorator of a helper that kernels call for every row."""
outer = njit(**_INSIDE)
"""Decorator of a helper that is called seldom: compiled once instead of into every place that calls it."""


def source_digest(*files: str) -> int:
    """Checksum of source files, for the default value of a kernel's last parameter."""
    digest = 0
    for file in files:
        digest = zlib.crc32(Path(file).read_bytes(), digest)
    return digest


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
