"""Colours of the page and its figures have enough contrast in light and dark."""

from __future__ import annotations

import re

from fakes import ROOT

from analysis.draw.style import BASELINE, DARK_PAPER, GRAPHICS, STYLES, contrast, on_dark


def test_every_colour_of_a_figure_stands_out_on_a_dark_page() -> None:
    css = ((ROOT / "analysis" / "page") / "page.css").read_text()
    assert f"--paper: {DARK_PAPER}" in css
    lighter = {c.colour.lower(): on_dark(c.colour) for c in STYLES.values() if c.colour != BASELINE}
    assert len(lighter) == len({c.colour for c in STYLES.values()}) - 1
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
