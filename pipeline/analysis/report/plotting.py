"""Figures as SVG and PNG through matplotlib: the same figure, the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from astrocyte.pipeline.analysis.report.content import Figure
from astrocyte.pipeline.analysis.report.palette import LIGHT, MARKED, Palette, variables
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["as_png", "as_svg", "require_matplotlib"]

_WIDTH_IN: Final = 4.6
_HEIGHT_IN: Final = 2.9
_TALL_IN: Final = 4.4
_PNG_DPI: Final = 160
_DIGITS: Final = re.compile(r"(\d+\.\d\d)\d+")
"""Hundredths of a point are enough for places, which fill most of an SVG."""
_STYLE: Final[dict[str, Any]] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same glyphs and widths on every machine
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.4,
    "svg.fonttype": "none",
    "svg.hashsalt": "astrocyte",
    "path.simplify": False,
    "axes.autolimit_mode": "data",
}


def require_matplotlib() -> None:
    """Raise InvalidSettings where matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        raise InvalidSettings(
            "the figures of a report need matplotlib, which is not installed; pip install 'astrocyte[report]'"
        ) from None
    del mpl


def as_svg(figure: Figure) -> str:
    """A figure as SVG for a page whose style sheet has the palette's variables."""
    with _drawn(figure, MARKED) as canvas:
        out = io.StringIO()
        canvas.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    # Ids of clipping paths and markers are hashes of their contents; those of two figures must not meet in one page.
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{figure.name}-", svg)
    opening = re.compile(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>')
    svg = opening.sub(r'<svg viewBox="\1" aria-hidden="true" xmlns:xlink="http://www.w3.org/1999/xlink">', svg, count=1)
    svg = re.sub(r'"[^"<>]*"', lambda found: _DIGITS.sub(r"\1", found[0]), svg)
    return variables(re.sub(r"\n\s*", "\n", svg).strip())


def as_png(figure: Figure) -> bytes:
    """A figure as PNG, in light colours."""
    with _drawn(figure, LIGHT) as canvas:
        out = io.BytesIO()
        canvas.savefig(out, format="png", dpi=_PNG_DPI, facecolor=LIGHT.paper, metadata={"Software": None})
    return out.getvalue()


@contextmanager
def _drawn(figure: Figure, palette: Palette) -> Iterator[Any]:
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    colours = {
        "text.color": palette.ink, "axes.edgecolor": palette.muted, "axes.labelcolor": palette.ink,
        "xtick.color": palette.muted, "ytick.color": palette.muted, "xtick.labelcolor": palette.ink,
        "ytick.labelcolor": palette.ink, "axes.facecolor": "none", "figure.facecolor": "none",
        "grid.color": palette.grid, "legend.labelcolor": palette.ink,
    }  # fmt: skip
    with mpl.rc_context({**mpl.rcParamsDefault, **_STYLE, **colours}):
        size = (_WIDTH_IN, _TALL_IN if figure.tall else _HEIGHT_IN)
        canvas = Canvas(figsize=size, layout="constrained")
        axes = canvas.add_subplot()
        axes.locator_params(nbins=6)
        figure.draw(axes, palette)
        yield canvas
