import re
from xml.etree import ElementTree

import pytest
import worlds

from sftknow.report.figures import figures
from sftknow.report.results import results_of
from sftknow.report.style import DARK, LIGHT, inline_svg, png, standalone_svg

NAMES = ["mastery", "accuracy", "divergence", "concentration", "restoration", "equal-change"]
PANELS = [3, 2, 2, 2, 4, 4]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def drawn():
    return {figure.name: figure for figure in figures(results_of(worlds.record()))}


def texts(svg):
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_every_figure_is_there_with_its_panels(drawn):
    assert list(drawn) == NAMES
    assert [len(figure.panels) for figure in drawn.values()] == PANELS


def test_the_same_results_give_the_same_bytes(drawn):
    again = {figure.name: figure for figure in figures(results_of(worlds.record()))}
    for name in ("mastery", "concentration"):
        assert standalone_svg(drawn[name]) == standalone_svg(again[name])
        assert png(drawn[name]) == png(again[name])


def test_bars_are_labelled_with_shares_counted_by_hand(drawn):
    # 156, 180, 66, 72 and 126 of 600 test facts
    svg = inline_svg(drawn["mastery"].panels[1], 3)
    assert [text for text in texts(svg) if text.endswith("%")] == ["26%", "30%", "11%", "12%", "21%"]
    assert "share of 600 facts" in texts(svg)
    assert "bucket 1 30%" in drawn["mastery"].panels[1].alt


def test_lines_carry_their_labels_and_the_base(drawn):
    found = texts(inline_svg(drawn["accuracy"].panels[0], 2))
    assert {"bucket 0", "bucket 4", "base", "60", "480"} <= set(found)


def test_sweeps_show_both_strategies_on_one_scale(drawn):
    ticks = set()
    for panel in drawn["restoration"].panels:
        found = texts(inline_svg(panel, 2))
        assert {"largest first", "random", "parameters restored, %"} <= set(found)
        ticks.add(tuple(text for text in found if text in {"15", "20", "25", "30", "35"}))
    assert len(ticks) == 1


def test_colours_come_from_the_page_and_text_is_its_own(drawn):
    for figure in drawn.values():
        svg = inline_svg(figure.panels[0], figure.columns)
        colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg))
        assert "currentColor" in svg
        assert all(c in ("none", "currentColor") or c.startswith("var(--") for c in colours), colours
    assert LIGHT.keys() == DARK.keys()


def test_inline_panels_do_not_share_identifiers(drawn):
    found = [
        identifier
        for figure in drawn.values()
        for panel in figure.panels
        for identifier in re.findall(r'\bid="([^"]+)"', inline_svg(panel, figure.columns))
    ]
    assert len(found) == len(set(found))
    svg = inline_svg(drawn["restoration"].panels[0], 2)
    targets = re.findall(r'(?:url\(#|href="#)([^")]+)', svg)
    assert targets and set(targets) <= set(re.findall(r'\bid="([^"]+)"', svg))


def test_a_standalone_file_brings_both_themes_and_its_description(drawn):
    svg = standalone_svg(drawn["accuracy"])
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img" and "Accuracy out of domain" in (root.get("aria-label") or "")
    assert "prefers-color-scheme: dark" in svg and LIGHT["bucket-4"] in svg and DARK["bucket-4"] in svg
    assert "<metadata" not in svg and "<!DOCTYPE" not in svg


def test_png_is_an_image_on_white(drawn):
    import io

    from matplotlib.image import imread

    pixels = imread(io.BytesIO(png(drawn["mastery"])), format="png")
    assert pixels.shape[:2] == (580, 1980) and pixels[0, 0, :3].tolist() == [1, 1, 1]


@pytest.mark.parametrize("kept", [[], ["histogram"], ["runs"], ["concentration"], ["runs", "sweeps"]])
def test_figures_without_data_are_left_out(kept):
    record = worlds.record(seeds=(1,), facts=10)
    found = figures(results_of({key: record[key] for key in kept}))
    by_part = {
        "histogram": {"mastery"},
        "runs": {"accuracy", "divergence"},
        "concentration": {"concentration"},
        "sweeps": {"restoration", "equal-change"},
    }
    assert {figure.name for figure in found} == set().union(*(by_part[key] for key in kept))
    for figure in found:
        assert standalone_svg(figure).startswith("<svg ")


def test_sparse_sweeps_and_lost_buckets_still_draw():
    record = worlds.record(seeds=(1,))
    for one in record["sweeps"]:
        one["steps"] = one["steps"][:2]
    for where in [record["base"], *(one["score"] for one in record["runs"])]:
        empty = where["in_domain"]["buckets"].pop("4")
        where["in_domain"]["accuracy"] = (where["in_domain"]["accuracy"] * 5 - empty["accuracy"]) / 4
    record["sweeps"] = [one for one in record["sweeps"] if one["strategy"] == "random"]
    for one in record["sweeps"]:
        for step in one["steps"]:
            empty = step["score"]["in_domain"]["buckets"].pop("4")
            step["score"]["in_domain"]["accuracy"] = (
                step["score"]["in_domain"]["accuracy"] * 5 - empty["accuracy"]
            ) / 4
    for figure in figures(results_of(record)):
        assert standalone_svg(figure).startswith("<svg ")
