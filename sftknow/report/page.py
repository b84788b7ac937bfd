"""The report itself: one self-contained HTML page, the same in Markdown, and the figures as files."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sftknow.errors import DataError
from sftknow.records import write_bytes, write_text
from sftknow.report import summary
from sftknow.report.figures import figures
from sftknow.report.findings import findings
from sftknow.report.results import Results, read_results, results_of
from sftknow.report.style import Figure, inline_svg, png, standalone_svg, variables
from sftknow.report.tables import Table, tables
from sftknow.report.verdicts import RULE, Finding

TITLE = "What fine-tuning did to what the model knew"
TEMPLATES = {"html": "page.html.jinja", "md": "page.md.jinja"}


@dataclass(frozen=True)
class Report:
    """Everything a page shows, whatever it was made from."""

    title: str
    headline: str
    about: tuple[str, ...]
    missing: tuple[str, ...]
    findings: tuple[Finding, ...]
    rule: str
    figures: tuple[Figure, ...]
    tables: Mapping[str, Table]
    settings: tuple[tuple[str, summary.Pairs], ...]
    provenance: tuple[tuple[str, summary.Pairs], ...]
    created: str | None


def write_report(record: Path | str | Mapping[str, Any] | Results, folder: Path) -> Path:
    """Write report.html, report.md and figures/ from a demo record, finished or not.

    Args:
        record: the record's file, the folder that holds demo.json, its fields, or results already read.
        folder: where to write; made where it does not exist. Files of an earlier report are replaced.

    Returns:
        The path of report.html.

    Raises:
        DataError: the record cannot be read, or the folder cannot be written.
    """
    report = report_of(_results(record))
    drawings = Path(folder) / "figures"
    try:
        drawings.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{drawings} cannot be made: {error.strerror or error}; name another folder.") from error
    for figure in report.figures:
        write_bytes(drawings / f"{figure.name}.png", png(figure))
        write_text(drawings / f"{figure.name}.svg", standalone_svg(figure))
    write_text(Path(folder) / "report.md", render_markdown(report))
    page = Path(folder) / "report.html"
    write_text(page, render_html(report))
    return page


def report_of(results: Results) -> Report:
    """Gather what a page shows from the results of a demo."""
    judged = findings(results)
    return Report(
        title=TITLE,
        headline=summary.headline(results, judged),
        about=summary.about(results),
        missing=summary.not_yet(results),
        findings=judged,
        rule=RULE,
        figures=figures(results),
        tables=tables(results),
        settings=summary.settings(results),
        provenance=summary.provenance(results),
        created=results.created,
    )


def render_html(report: Report) -> str:
    """Return the page as HTML that loads nothing from anywhere."""
    from markupsafe import Markup

    drawn = {
        panel.name: Markup(inline_svg(panel, figure.columns)) for figure in report.figures for panel in figure.panels
    }
    colours = Markup(variables(":root"))
    return str(_templates().get_template(TEMPLATES["html"]).render(report=report, drawn=drawn, colours=colours))


def render_markdown(report: Report) -> str:
    """Return the report as Markdown, its figures as PNG files beside it."""
    return str(_templates().get_template(TEMPLATES["md"]).render(report=report))


@cache
def _templates() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: name is None or ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = _plain
    environment.filters["slug"] = lambda text: text.replace(" ", "-")
    return environment


def _plain(text: str) -> str:
    """Escape what Markdown and the HTML inside it would read as more than text."""
    escaped = "".join(f"\\{character}" if character in "\\`*_[]|#" else character for character in text)
    return " ".join(escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())


def _results(record: Path | str | Mapping[str, Any] | Results) -> Results:
    if isinstance(record, Results):
        return record
    return results_of(record) if isinstance(record, Mapping) else read_results(Path(record))
