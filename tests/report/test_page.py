import html.parser
import re

import pytest
import worlds
from click.testing import CliRunner

from sftknow.cli.report import command
from sftknow.errors import DataError
from sftknow.report.page import render_html, render_markdown, report_of, write_report
from sftknow.report.results import results_of

FIGURES = ("mastery", "accuracy", "divergence", "concentration", "restoration", "equal-change")
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Reader(html.parser.HTMLParser):
    """Collects elements and checks that every one is closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def ids(reader):
    return {attrs["id"] for _, attrs in reader.elements if "id" in attrs}


def test_page_has_every_figure_table_and_finding(report):
    page = read((report / "report.html").read_text(encoding="utf-8"))
    assert {*FIGURES, *(f"table-{name}" for name in FIGURES), "findings", "settings", "provenance"} <= ids(page)
    assert sum(name.startswith("finding-") for name in ids(page)) == 6
    assert sum(tag == "svg" for tag, _ in page.elements) == 17
    assert all(attrs.get("role") == "img" and attrs.get("aria-label") for tag, attrs in page.elements if tag == "svg")


def test_page_loads_nothing(report):
    text = (report / "report.html").read_text(encoding="utf-8")
    page = read(text)
    assert not {"script", "link", "img", "iframe", "object", "base"} & {tag for tag, _ in page.elements}
    for _, attrs in page.elements:
        for name, value in attrs.items():
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                assert value.startswith("#")
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_page_identifiers_are_unique(report):
    page = read((report / "report.html").read_text(encoding="utf-8"))
    found = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(found) == len(set(found))


def test_settings_and_provenance_are_shown(report):
    text = " ".join(read((report / "report.html").read_text(encoding="utf-8")).text)
    for expected in (
        "0.0005",
        "1,050,000",
        "8f3a2c90d1e4b576",
        "torch",
        "491.0",
        "0, 1, 2",
        "What the laboratory is not",
    ):
        assert expected in text


def test_figures_are_written_as_files_and_named_in_markdown(report):
    markdown = (report / "report.md").read_text(encoding="utf-8")
    for name in FIGURES:
        assert (report / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (report / "figures" / f"{name}.svg").read_text(encoding="utf-8").startswith("<svg ")
        assert f"(figures/{name}.png)" in markdown
    assert "| Test facts, in domain | 156 (26%) |" in markdown


def test_the_headline_tells_the_story_in_numbers():
    record = worlds.record()
    low, high = (
        sum(one["score"]["in_domain"]["accuracy"] for one in record["runs"] if (one["bucket"], one["n"]) == cell) * 50
        for cell in ((0, 480), (4, 480))
    )
    headline = report_of(results_of(record)).headline
    assert f"answers {low:.1f}% of test questions; on 480 facts it had mastered, {high:.1f}%." in headline
    assert "Undoing the 20% largest relative updates brings the first from" in headline
    assert "Of the paper's five findings, one holds and four cannot be told in these results." in headline


def test_half_way_the_page_says_what_is_missing():
    record = worlds.record(facts=10)
    record["runs"] = record["runs"][:3]
    del record["sweeps"], record["concentration"], record["histogram"]
    page = " ".join(read(render_html(report_of(results_of(record)))).text)
    assert "Not yet:" in page
    for missing in ("mastery of the base model", "restoration sweeps", "bucket 4 with 60 samples", "bucket 4 with 480"):
        assert missing in page
    assert "Not yet: this needs a largest-first sweep on the low bucket." in page


def test_an_empty_record_still_makes_a_page():
    report = report_of(results_of({}))
    assert "fine-tunings" in render_html(report)
    assert "Not yet" in render_markdown(report)
    assert "cannot be told" in report.headline


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> | `x` [a](http://b) &amp;"


def test_strings_of_the_record_are_only_ever_text():
    record = {
        "settings": {"facts": HOSTILE, HOSTILE: [HOSTILE], "quick": True},
        "model": {"name": HOSTILE},
        "protocol": {HOSTILE: {HOSTILE: 1}},
        "seconds": {HOSTILE: 1.0},
        "created": HOSTILE,
        "versions": {HOSTILE: HOSTILE},
        "made_from": {HOSTILE: {HOSTILE: HOSTILE}},
    }
    report = report_of(results_of(record))
    page = read(render_html(report))
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert any(HOSTILE in data for data in page.text)
    markdown = render_markdown(report)
    assert "<script" not in markdown and "<img" not in markdown
    assert "[a](" not in markdown.replace("\\[a\\](", "")


def test_the_command_writes_beside_the_record_or_elsewhere(report, tmp_path):
    result = CliRunner().invoke(command, [str(report), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(tmp_path / "out" / "report.html")
    written = (tmp_path / "out" / "report.html").read_bytes()
    assert written == (report / "report.html").read_bytes()


def test_the_command_prints_tables_without_writing(report, tmp_path):
    before = sorted(report.rglob("*"))
    result = CliRunner().invoke(command, [str(report), "--tables"])
    assert result.exit_code == 0
    assert "Facts by mastery bucket" in result.output and "holds" in result.output
    assert sorted(report.rglob("*")) == before


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="figures cannot be made"):
        write_report({}, tmp_path / "file")


def test_the_page_says_whether_the_checkpoint_on_disk_scores_as_in_memory(tmp_path):
    restored = {"folder": "demo/restored", "from": "bucket0-n480-seed1", "percent": 20.0, "as_in_memory": False}
    page = write_report({**worlds.record(), "restored": restored}, tmp_path).read_text()
    assert "<dt>Scores from disk equal those in memory</dt><dd>no</dd>" in page
    assert "bucket0-n480-seed1" in page
