"""Colours of the page and its figures have enough contrast in light and dark."""

from __future__ import annotations

import re
from pathlib import Path

from fakes import ROOT
from fakes.figures import every_kind, texts, twenty
from matplotlib.colors import to_hex

from analysis.draw import accuracy, best_lines, layers
from analysis.draw.style import BASELINE, DARK_PAPER, GRAPHICS, contrast, on_dark, style_of
from analysis.page.html import FOLLOW
from analysis.report import results
from suite.record.method_colours import CHOSEN, OTHER_COLOURS, colour_and_marker

TEXT = 4.5
"""The contrast that WCAG asks of small text."""


def modes() -> list[dict[str, str]]:
    """The colours of the page by the names of their variables, in light and in dark."""
    css = ((ROOT / "analysis" / "page") / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    assert len(blocks) == 2
    return [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in blocks]


def test_every_text_of_a_figure_can_be_read_on_white_and_on_a_dark_page(tmp_path: Path) -> None:
    """Names at the ends of lines had the colours of their methods: that of `amax` has 2.3 on white."""
    inside_cells = {layers.DARK_TEXT, layers.LIGHT_TEXT}
    for figure in every_kind(tmp_path):
        found = {to_hex(str(text.get_color())) for text in texts(figure)} - inside_cells
        assert found and all(contrast(colour, "#ffffff") >= TEXT for colour in found), found
        for colours in modes():
            shown = {colours[FOLLOW[colour].removeprefix("--")] for colour in found}
            assert all(contrast(colour, colours["paper"]) >= TEXT for colour in shown), shown


def test_each_name_at_the_end_of_a_line_stands_behind_the_lines_marker(tmp_path: Path) -> None:
    twenty(tmp_path)
    found = results.load(tmp_path, "small")
    axes = accuracy.figure(found.summary, found.comparison).axes[0]
    leaders = [line for line in axes.lines if line.get_transform() == axes.transAxes]
    assert len(leaders) == len(axes.texts) == best_lines.MOST
    for line, text in zip(leaders, axes.texts, strict=True):
        own = style_of(text.get_text())
        assert (to_hex(str(line.get_color())), line.get_marker()) == (to_hex(own.colour), own.marker)
        x, y = text.get_position()
        assert line.get_ydata()[1] == y and line.get_xdata()[1] < x  # type: ignore[index]


def test_every_colour_of_a_figure_stands_out_on_a_dark_page() -> None:
    css = ((ROOT / "analysis" / "page") / "page.css").read_text()
    assert f"--paper: {DARK_PAPER}" in css
    colours = {colour for colour, _ in CHOSEN.values()} | set(OTHER_COLOURS)
    lighter = {colour: on_dark(colour) for colour in colours if colour != BASELINE}
    assert len(lighter) == len(colours) - 1
    assert all(contrast(light, DARK_PAPER) >= GRAPHICS for light in lighter.values())


def test_the_text_of_the_page_has_enough_contrast_in_light_and_dark() -> None:
    for colours in modes():
        for name in ("ink", "quiet", "accent", "good", "bad"):
            assert contrast(colours[name], colours["paper"]) >= TEXT, name
        assert contrast(colours["ink"], colours["alert"]) >= TEXT


def test_a_method_that_is_not_listed_has_a_colour_that_no_listed_one_has_and_that_shows_on_white() -> None:
    assert not set(OTHER_COLOURS) & {colour for colour, _ in CHOSEN.values()}
    assert all(contrast(colour, "#ffffff") >= GRAPHICS for colour in OTHER_COLOURS)
    names = [f"own_{number}" for number in range(1000)]
    looks = {name: colour_and_marker(name) for name in names}
    assert len(set(looks.values())) == len(OTHER_COLOURS) * 15 and {c for c, _ in looks.values()} == set(
        OTHER_COLOURS
    )
