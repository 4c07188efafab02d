"""Numbers that are written as text: which fields hold them, and the declaration that reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from astrocyte.pipeline.analysis.inspect.columns import FieldStats, text_kind
from astrocyte.pipeline.analysis.inspect.proposals.keys import identifies
from astrocyte.pipeline.console import short

__all__ = ["number_spec", "text_notes"]


def number_spec(each: FieldStats, aside: Iterable[str] = ()) -> str | None:
    """The declaration by which a field's numbers written as text are read; None where it has none.

    Fields ``aside``, and those whose names say that they identify something, hold ids, which are no numbers.
    """
    if not each.numerals or each.name in aside or identifies(each.name) or not _are_numbers(each):
        return None
    whole = each.fractions == 0 and not each.kinds["number"]
    return f"{{type: {'int64' if whole else 'float64'}, text: true}}"


def _are_numbers(each: FieldStats) -> bool:
    """Whether what is text is rather a number: nearly all of it, or beside numbers."""
    return each.is_mixed or each.numerals + each.commas >= 0.5 * each.kinds["text"]


def text_notes(fields: Iterable[FieldStats], aside: Iterable[str] = ()) -> Iterator[str]:
    """Sentences on the fields that hold numbers written as text."""
    for each in fields:
        if each.name in aside or identifies(each.name) or not _are_numbers(each):
            continue
        if (spec := number_spec(each, aside)) is not None:
            name = each.name if each.name.isidentifier() else repr(short(each.name))
            yield (
                f"{_counted(each, each.numerals)} written as text, such as {_example(each, 'number')}, which no number "
                f"equals; declare fields: {{{name}: {spec}}} to read them"
            )
        if each.commas:
            yield (
                f"{_counted(each, each.commas)} written as text with a decimal comma, such as "
                f"{_example(each, 'comma')}, which no declaration reads; send a decimal point, or convert them in a "
                "decoder"
            )


def _counted(each: FieldStats, count: int) -> str:
    of = f"all {count:,}" if count == each.count > 1 else f"{count:,} of {each.count:,}"
    return f"{of} values of {short(each.name)} {'is a number' if count == 1 else 'are numbers'}"


def _example(each: FieldStats, kind: str) -> str:
    found = next((value for value in each.values if isinstance(value, str) and text_kind(value) == kind), "")
    return f'"{short(found, 40)}"'
