"""Where a character of a YAML scalar's text stands in the file, whatever the style in which it is written.

Folding and indentation change white space only: the n-th other character of the text is the n-th other one of what is
written. Only in quotation marks does one character of the text have another spelling.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import yaml

__all__ = ["place_in"]

_BREAKS: Final = "\n\x85\u2028\u2029"
_ESCAPE: Final = re.compile(r"\\(?:x(..)|u(.{4})|U(.{8})|(\s)|(.))", re.DOTALL)
_WHITE_ESCAPES: Final = frozenset("tnvfrN_LP")
"""Letters of escape sequences that stand for white space."""


def place_in(node: yaml.ScalarNode, position: int) -> tuple[int, int]:
    """Line and column, from 1, of the character of ``node.value`` at ``position``; of its end for one beyond it.

    The start of the value where the two spellings do not agree.
    """
    start = node.start_mark
    value = str(node.value)
    written = list(_characters(node))
    shown = [index for index, char in enumerate(value) if not char.isspace()]
    if len(written) != len(shown) or not written:
        return start.line + 1, start.column + 1
    before = sum(index < position for index in shown)
    if before < len(shown) and (shown[before] == position or not before):
        offset = written[before][0]
    else:
        offset = written[before - 1][1]  # white space is taken for what follows the character before it
    return _place(node, offset)


def _characters(node: yaml.ScalarNode) -> Iterator[tuple[int, int]]:
    """Start and end in the file of each character that is no white space."""
    buffer, begin, end = str(node.start_mark.buffer), node.start_mark.pointer, node.end_mark.pointer
    if node.style in ("|", ">"):
        begin = next((at + 1 for at in range(begin, end) if buffer[at] in _BREAKS or buffer[at] == "\r"), end)
    elif node.style in ("'", '"'):
        begin, end = begin + 1, end - 1
    at = begin
    while at < end:
        step, white = 1, buffer[at].isspace()
        if node.style == "'" and buffer.startswith("''", at):
            step = 2
        elif node.style == '"' and (found := _ESCAPE.match(buffer, at, end)) is not None:
            step, white = len(found[0]), _is_white(found)
        if not white:
            yield at, at + step
        at += step


def _is_white(escape: re.Match[str]) -> bool:
    code = escape[1] or escape[2] or escape[3]
    if code is None:
        return escape[4] is not None or escape[5] in _WHITE_ESCAPES
    number = int(code, 16)
    # The second half of a pair belongs to the character of the first.
    return 0xDC00 <= number <= 0xDFFF or chr(number).isspace()


def _place(node: yaml.ScalarNode, offset: int) -> tuple[int, int]:
    mark = node.start_mark
    before = str(mark.buffer)[mark.pointer : offset]
    lines = re.split(f"\r\n|[\r{_BREAKS}]", before)
    return mark.line + len(lines), len(lines[-1]) + (mark.column if len(lines) == 1 else 0) + 1
