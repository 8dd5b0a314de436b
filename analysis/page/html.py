"""The page as one file: figures, styles and script inlined, nothing from the network."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.draw.style import BASELINE, QUIET, RC, on_dark
from analysis.draw.waterfall import BETTER, WORSE
from analysis.page.parts import Picture, Section
from suite.record.method_colours import CHOSEN, OTHER_COLOURS

HERE = Path(__file__).parent


# Colours of a figure that follow the page, and the variable of the page's style sheet that each becomes.
FOLLOW = {BASELINE: "--ink", "#ffffff": "--paper", RC["grid.color"]: "--rule", QUIET: "--quiet"}


def svg(picture: Picture) -> Markup:
    """The figure as an element of a page on which no other picture has its name; its colours follow the page's."""
    return Markup(_inlined(picture.svg, f"{picture.name}-figure"))


def narrow_svg(picture: Picture) -> Markup:
    """The same of the figure for a phone."""
    return Markup(_inlined(picture.narrow_svg, f"{picture.name}-narrow-figure"))


def _inlined(text: str, name: str) -> str:
    """matplotlib's SVG file as an element: without prolog, metadata and paper; ids its own, colours variable."""
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="patch_1">.*?</g>\n', "", text, count=1, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text).replace("xlink:href", "href")
    text = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1
    )
    return re.sub(r'style="[^"]*"', lambda m: re.sub(r"#[0-9a-f]{6}\b", _variable, m[0]), text)


def _variable(found: re.Match[str]) -> str:
    colour = found[0]
    return f"var({FOLLOW[colour]})" if colour in FOLLOW else f"var(--c{colour[1:]},{colour})"


def _dark_colours() -> dict[str, str]:
    """What each colour of a figure that is too dark for a dark page becomes there, by variable."""
    colours = {*(colour for colour, _ in CHOSEN.values()), *OTHER_COLOURS, BETTER, WORSE} - {BASELINE}
    lighter = {colour.lower(): on_dark(colour) for colour in sorted(colours)}
    return {f"--c{colour[1:]}": light for colour, light in lighter.items() if light != colour}


def render(title: str, eyebrow: str, sections: Sequence[Section]) -> str:
    """The page. Its policy lets nothing be loaded, and no script run but its own."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"svg": svg, "narrow_svg": narrow_svg}
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        title=title,
        eyebrow=eyebrow,
        sections=sections,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        digest=digest,
        dark=_dark_colours(),
    )
