"""Colours of the page and its figures have enough contrast in light and dark."""

from __future__ import annotations

import re

from fakes import ROOT

from analysis.draw.style import BASELINE, DARK_PAPER, GRAPHICS, contrast, on_dark
from suite.record.method_colours import CHOSEN, OTHER_COLOURS, colour_and_marker


def test_every_colour_of_a_figure_stands_out_on_a_dark_page() -> None:
    css = ((ROOT / "analysis" / "page") / "page.css").read_text()
    assert f"--paper: {DARK_PAPER}" in css
    colours = {colour for colour, _ in CHOSEN.values()} | set(OTHER_COLOURS)
    lighter = {colour: on_dark(colour) for colour in colours if colour != BASELINE}
    assert len(lighter) == len(colours) - 1
    assert all(contrast(light, DARK_PAPER) >= GRAPHICS for light in lighter.values())


def test_the_text_of_the_page_has_enough_contrast_in_light_and_dark() -> None:
    css = ((ROOT / "analysis" / "page") / "page.css").read_text()
    modes = [
        dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    ]
    assert len(modes) == 2
    for colours in modes:
        for name in ("ink", "quiet", "accent", "good", "bad"):
            assert contrast(colours[name], colours["paper"]) >= 4.5, name
        assert contrast(colours["ink"], colours["alert"]) >= 4.5


def test_a_method_that_is_not_listed_has_a_colour_that_no_listed_one_has_and_that_shows_on_white() -> None:
    assert not set(OTHER_COLOURS) & {colour for colour, _ in CHOSEN.values()}
    assert all(contrast(colour, "#ffffff") >= GRAPHICS for colour in OTHER_COLOURS)
    names = [f"own_{number}" for number in range(1000)]
    looks = {name: colour_and_marker(name) for name in names}
    assert len(set(looks.values())) == len(OTHER_COLOURS) * 15 and {c for c, _ in looks.values()} == set(
        OTHER_COLOURS
    )
