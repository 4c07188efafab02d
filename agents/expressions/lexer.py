"""The words and symbols of an expression, and the Python text of the same length that `ast.parse` reads.

Python's parser changes what a rule's author wrote: it normalises names (U+00B5 becomes U+03BC), joins two strings that
stand side by side, and ends at a ``#`` once the lines are joined. So names are replaced by placeholders and are looked
up by their position, comments end with their line, and spellings of other languages are refused with the right one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final, NamedTuple

from astrocyte.agents.expressions.nodes import ExpressionError

__all__ = ["CONSTANTS", "KEYWORDS", "PlainText", "comment_at", "end_of_braces", "is_name", "to_python"]

_TOKEN: Final = re.compile(
    r"""(?P<comment>\#[^\n]*)
    | (?P<string>(?:[rubfRUBF]|[rR][bfBF]|[bfBF][rR])?(?:'''.*?'''|\"\"\".*?\"\"\"|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))
    | (?P<quoted>`[^`\n]*`)
    | (?P<number>(?:\d|\.\d)(?:[eE][+-]\d|[\w.])*)
    | (?P<word>[^\W\d]\w*)
    | (?P<space>\s+)
    | (?P<symbol>===|!==|<=>|==|!=|<=|>=|<>|:=|=~|&&|\|\||.)""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER: Final = re.compile(
    r"0[xX][\da-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d[\d_]*)?[jJ]?"
)
_SAFE: Final = re.compile(r"[^\W\d]\w*")
KEYWORDS: Final = frozenset({"and", "or", "not", "in", "is"})
CONSTANTS: Final = {"true": "True", "false": "False", "null": "None", "none": "None"}
"""Constants by their lower-case spelling. ``none`` counts only as ``None``, the others also in lower and upper case."""
_PYTHON: Final = frozenset({"if", "else", "for", "lambda"})
"""Left to Python's parser, so that the error names the construct."""
_SYMBOLS: Final = {
    "=": "==", "===": "==", "!==": "!=", "<>": "!=", "&&": "and", "||": "or", "!": "not", "&": "and", "|": "or",
    "=~": "contains, startswith or endswith",
    "\u2264": "<=", "\u2a7d": "<=", "\u2265": ">=", "\u2a7e": ">=", "\u2260": "!=", "\u2261": "==", "\u00ac": "not",
    "\u2227": "and", "\u2228": "or", "\u2212": "-", "\u00d7": "*", "\u22c5": "*", "\u00f7": "/",
    "\u2208": "in", "\u2209": "not in",
}  # fmt: skip
"""What other languages, and those who write mathematics, spell otherwise."""
_QUOTES: Final = frozenset("\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a\u00ab\u00bb\u00b4\uff02\uff07")
"""Quotation marks of word processors and other languages."""
_ALLOWED: Final = frozenset({"==", "!=", "<=", ">=", ":=", *"()[]{},.+-*/%<>:^~"})
_INFIX: Final = {
    "like": "contains(x, 'text'), startswith or endswith", "ilike": "contains(x, 'text'), startswith or endswith",
    "matches": "contains(x, 'text'), startswith or endswith", "contains": "contains(x, 'text') or 'text' in x",
    "startswith": "startswith(x, 'text')", "endswith": "endswith(x, 'text')", "between": "1 <= x <= 2",
    "isnull": "x is None", "notnull": "x is not None", "exists": "x is not None", "eq": "==", "ne": "!=", "gt": ">",
    "ge": ">=", "gte": ">=", "lt": "<", "le": "<=", "lte": "<=", "mod": "%", "xor": "!=",
}  # fmt: skip


class PlainText(NamedTuple):
    """Python's spelling of an expression, character by character, and the names as they were written."""

    text: str
    names: dict[int, str]
    """Name by the position of its placeholder."""


class _Token(NamedTuple):
    kind: str
    text: str
    at: int

    @property
    def end(self) -> int:
        return self.at + len(self.text)


def is_name(text: str) -> bool:
    """Whether a field of this name can be written without backquotes."""
    return (
        _SAFE.fullmatch(text) is not None and text not in _PYTHON and _keyword(text) is None and _constant(text) is None
    )


def _keyword(word: str) -> str | None:
    lower = word.lower()
    return lower if lower in KEYWORDS and word in (lower, lower.upper()) else None


def _constant(word: str) -> str | None:
    lower = word.lower()
    value = CONSTANTS.get(lower)
    if value is None or lower == "none":
        return value if word == "None" else None
    return value if word in (lower, lower.upper(), value, lower.capitalize()) else None


def _tokens(text: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(text):
        kind = str(found.lastgroup)
        if kind == "word":
            after_dot = text[: found.start()].rstrip().endswith(".")
            if not after_dot and _keyword(found[0]):
                kind = "keyword"
            elif not after_dot and _constant(found[0]):
                kind = "constant"
        yield _Token(kind, found[0], found.start())


def comment_at(text: str) -> int | None:
    """Position of the first comment of an expression; None without one."""
    return next((token.at for token in _tokens(text) if token.kind == "comment"), None)


def end_of_braces(text: str, start: int) -> int:
    """Position of the brace that closes an expression that begins at ``start``; -1 if none does."""
    depth = 0
    for token in _tokens(text[start:]):
        if token.text == "{":
            depth += 1
        elif token.text == "}":
            if not depth:
                return start + token.at
            depth -= 1
    return -1


def to_python(text: str) -> PlainText:
    """``text`` as Python reads it. Raises ExpressionError for what is written otherwise in the rule language."""
    written: list[str] = []
    names: dict[int, str] = {}
    tokens = [token for token in _tokens(text) if token.kind != "space"]
    before: _Token | None = None
    for index, token in enumerate(tokens):
        after = tokens[index + 1] if index + 1 < len(tokens) else None
        _check_neighbours(text, before, token, after)
        written.append(" " * (token.at - sum(map(len, written))))
        if token.kind == "comment":
            written.append(" " * len(token.text))
            continue
        if token.kind == "keyword":
            written.append(token.text.lower())
        elif token.kind == "constant":
            written.append(str(_constant(token.text)))
        elif token.kind == "quoted" or (token.kind == "word" and token.text not in _PYTHON):
            names[token.at] = token.text.strip("`")
            if not names[token.at]:
                raise ExpressionError(
                    "expected the name of a field between the backquotes, got nothing", text, token.at
                )
            written.append("x" * len(token.text))
        else:
            if token.kind == "symbol":
                _check_symbol(text, token)
            elif token.kind == "number" and not _NUMBER.fullmatch(token.text):
                raise ExpressionError(
                    f"expected a number, got {token.text!r}; a field with such a name is written in backquotes: "
                    f"`{token.text}`", text, token.at,
                )  # fmt: skip
            written.append(re.sub(r"[\n\r]", " ", token.text))
        before = token
    return PlainText("".join(written), names)


def _check_symbol(text: str, token: _Token) -> None:
    if token.text in _ALLOWED or token.text in "'\"":
        return  # an unclosed quotation mark is left to Python, whose error says so
    right = _SYMBOLS.get(token.text)
    if right is None and token.text in _QUOTES and not text[: token.at][-1:].isalnum():
        right = "straight quotation marks, ' or \""
    if right is None and "\uff01" <= token.text <= "\uff5e":  # the wide forms of ASCII
        right = unicodedata.normalize("NFKC", token.text)
        right = _SYMBOLS.get(right, right)
    if right is not None:
        raise ExpressionError(f"{token.text!r} is not part of the rule language; write {right}", text, token.at)
    if token.text == "`":
        raise ExpressionError("this backquote is never closed", text, token.at)
    run = re.search(r"[^\s()\[\],'\"`]*$", text[: token.at])
    rest = re.match(r"[^\s()\[\],'\"`]*", text[token.at :])
    name = (run[0] if run else "") + (rest[0] if rest else "")
    raise ExpressionError(
        f"{token.text!r} is not part of the rule language; a field with such a name is written in backquotes: `{name}`",
        text,
        token.at,
    )


_OPERANDS: Final = frozenset({"string", "quoted", "number", "word", "constant"})


def _check_neighbours(text: str, before: _Token | None, token: _Token, after: _Token | None) -> None:
    """Refuse operands without an operator between them, and names that may be a subtraction."""
    if before is None:
        return
    closes = before.kind in _OPERANDS - {"word"} or before.text in (")", "]")
    closes = closes or (before.kind == "word" and before.text not in _PYTHON)
    if closes and token.kind in _OPERANDS and token.text not in _PYTHON:
        raise ExpressionError(_no_operator(before, token), text, token.at)
    if closes and token.kind == "keyword" and token.text.lower() == "not" and not _says(after, "in"):
        hint = "write 'is not None'" if after is not None and after.kind == "constant" else "write and, or or == before"
        raise ExpressionError(f"'not' stands directly after a value; {hint}", text, token.at)
    if token.text == "-" and before.kind == "word" and after is not None and after.kind == "word":
        called = text[after.end : after.end + 1] in ("(", ".")
        if before.end == token.at and token.end == after.at and not called:
            run = re.compile(r"\w+(?:-\w+)*").match(text, before.at)
            name = run[0] if run else text[before.at : after.end]
            raise ExpressionError(
                f"{name!r} may be one field or a subtraction; write `{name}` in backquotes for the field, or spaces "
                "around the minus sign for the subtraction", text, before.at,
            )  # fmt: skip


def _says(token: _Token | None, keyword: str) -> bool:
    return token is not None and token.kind == "keyword" and token.text.lower() == keyword


def _no_operator(before: _Token, token: _Token) -> str:
    if before.kind == token.kind == "string":
        return "two strings stand side by side; put a comma or an operator between them"
    hint = _INFIX.get(token.text.lower()) if token.kind == "word" else None
    if hint is None and before.kind == "word":
        hint = _INFIX.get(before.text.lower())
        token = before if hint is not None else token
    if hint is not None:
        return f"{token.text!r} is not part of the rule language; write {hint}"
    if before.kind == token.kind == "word":
        return (
            f"expected an operator between {before.text!r} and {token.text!r}; "
            f"a name with a space is written in backquotes: `{before.text} {token.text}`"
        )
    return f"expected an operator between {before.text!r} and {token.text!r}"
