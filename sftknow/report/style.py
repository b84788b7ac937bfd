"""How figures look, and how a drawn panel becomes SVG that follows its page or PNG that stands alone.

In SVG, text and axes are ``currentColor`` and every other colour is a CSS variable with the light value as fallback, so
one drawing serves light and dark pages. Bytes depend on the data alone: fixed identifiers, no dates.
"""

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

INK, MUTED, GRID, RANDOM = "#1c1d21", "#5d616b", "#dcdee3", "#747984"
BUCKET_COLOURS = ("#c2410c", "#d98324", "#8a7a93", "#4f94cb", "#1d5fa8")
LIGHT: Mapping[str, str] = {
    "muted": MUTED,
    "grid": GRID,
    "random": RANDOM,
    **{f"bucket-{i}": colour for i, colour in enumerate(BUCKET_COLOURS)},
}
DARK: Mapping[str, str] = {
    "muted": "#a9aeba",
    "grid": "#363a44",
    "random": "#a0a6b2",
    "bucket-0": "#ff8b5e",
    "bucket-1": "#f3b562",
    "bucket-2": "#b9abc3",
    "bucket-3": "#86bdee",
    "bucket-4": "#62a8ff",
}
INK_DARK = "#ececf0"
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"
PANEL_INCHES = {2: (4.2, 3.1), 3: (3.3, 2.9)}
SPACING: Mapping[str, Any] = {"w_pad": 0.06, "h_pad": 0.06, "wspace": 0.04, "hspace": 0.06}
SETTINGS: Mapping[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.titlepad": 22,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelsize": 10,
    "xtick.major.size": 3,
    "ytick.color": MUTED,
    "ytick.labelsize": 10,
    "ytick.major.size": 0,
}


@dataclass(frozen=True)
class Panel:
    """One small drawing: a name, its description in words, and what draws it onto matplotlib axes."""

    name: str
    alt: str
    draw: Callable[[Any], None]


@dataclass(frozen=True)
class Figure:
    """Small multiples that belong together, with title and caption."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    columns: int = 2


def inline_svg(panel: Panel, columns: int) -> str:
    """Return one panel of a figure of so many columns as an <svg> element for a page that defines the colours."""
    svg = _clean(_saved([panel], 1, PANEL_INCHES[columns], panel.name, "svg").decode("utf-8"), panel.name)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{_escaped(panel.alt)}" ', 1)


def standalone_svg(figure: Figure) -> str:
    """Return a whole figure as an SVG file that carries its own colours, light and dark."""
    svg = _clean(
        _saved(figure.panels, figure.columns, PANEL_INCHES[figure.columns], figure.name, "svg").decode("utf-8"),
        figure.name,
    )
    alt = _escaped(f"{figure.title}: {' '.join(panel.alt for panel in figure.panels)}")
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{alt}" ', 1)
    return re.sub(r"(<svg [^>]*>)", lambda found: f"{found[1]}<style>{variables('svg')}</style>", svg, count=1)


def png(figure: Figure) -> bytes:
    """Return a whole figure as PNG on white, 200 dots per inch."""
    return _saved(figure.panels, figure.columns, PANEL_INCHES[figure.columns], figure.name, "png")


def variables(selector: str) -> str:
    """Return the CSS that defines the colours for one selector, light and dark."""
    light = _declarations(INK, LIGHT)
    dark = _declarations(INK_DARK, DARK)
    return f"{selector}{{{light}}}@media screen and (prefers-color-scheme: dark){{{selector}{{{dark}}}}}"


def _declarations(ink: str, colours: Mapping[str, str]) -> str:
    return f"color:{ink};" + "".join(f"--{name}:{colour};" for name, colour in colours.items())


def _saved(panels: Sequence[Panel], columns: int, size: tuple[float, float], name: str, form: str) -> bytes:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **SETTINGS, "svg.hashsalt": name, "backend": "agg"}):
        canvas = Canvas(figsize=(size[0] * columns, size[1] * rows), layout=ConstrainedLayoutEngine(**SPACING))
        FigureCanvasAgg(canvas)
        for index, panel in enumerate(panels):
            panel.draw(canvas.add_subplot(rows, columns, index + 1))
        buffer = io.BytesIO()
        if form == "svg":
            canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        else:
            canvas.savefig(buffer, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _clean(svg: str, name: str) -> str:
    """Drop what an inline SVG must not carry, and turn colours, fonts and identifiers into the page's."""
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)
    svg = f'{head} style="stroke-linejoin: round; stroke-linecap: butt">{rest}'
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(#|xlink:href="#)', rf"\1{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]+", f"font-family: {FONTS}", svg)
    svg = svg.replace(INK, "currentColor")
    for role, colour in LIGHT.items():
        svg = svg.replace(colour, f"var(--{role}, {colour})")
    return svg


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)
