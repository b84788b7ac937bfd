"""The page in a real browser: it opens, draws, fits a phone, and asks the network for nothing."""

import re
import shutil
import subprocess

import pytest

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium installed")
MEASURE = """<script>
const wide = [...document.querySelectorAll("main *:not(.scroll *)")]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + "." + e.className);
const svgs = [...document.querySelectorAll("svg")].map(s => s.getBoundingClientRect());
document.title = JSON.stringify({
  width: innerWidth, scroll: document.documentElement.scrollWidth, wide: wide.slice(0, 5),
  drawn: svgs.filter(r => r.width > 200 && r.height > 120).length, svgs: svgs.length,
  loads: performance.getEntriesByType("resource").length});
</script>"""


def browse(page, tmp_path, *options):
    """Run the browser headless on one file; return what it printed."""
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--disable-dev-shm-usage",
        "--virtual-time-budget=2000", f"--user-data-dir={tmp_path / 'profile'}", *options, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize("width", [390, 1200])
def test_every_figure_is_drawn_and_nothing_overflows(report, tmp_path, width):
    import html
    import json

    page = tmp_path / "measured.html"
    text = (report / "report.html").read_text(encoding="utf-8").replace("<details>", "<details open>")
    page.write_text(text.replace("</body>", MEASURE + "</body>"), encoding="utf-8")
    dom = browse(page, tmp_path, f"--window-size={width},900", "--dump-dom")
    title = re.search(r"<title>(\{.*?\})</title>", dom)
    assert title is not None
    found = json.loads(html.unescape(title[1]))
    assert found["svgs"] == found["drawn"] == 17
    assert found["wide"] == [] and found["scroll"] <= found["width"]
    assert found["loads"] == 0


def test_it_is_painted_in_light_and_in_dark(report, tmp_path):
    from matplotlib.image import imread

    corners = []
    for scheme in (1, 0):  # Chromium's preferredColorScheme: 0 dark, 1 light
        shot = tmp_path / f"{scheme}.png"
        page = report / "report.html"
        browse(
            page,
            tmp_path,
            f"--blink-settings=preferredColorScheme={scheme}",
            "--window-size=800,1200",
            f"--screenshot={shot}",
        )
        pixels = imread(shot)[..., :3]
        assert pixels.std() > 0.05
        corners.append(pixels[5, 5].mean())
    assert corners[0] > 0.9
    assert corners[1] < 0.2
