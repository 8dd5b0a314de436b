"""`report.html`: one self-contained page of a sweep, a list of sections each of which is a small function.

A section is added by writing a function from the results to a Section (None where it has nothing to say) and naming
it in SECTIONS.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from analysis.page import best_section, headline, html, layer_sections, run_table, sections
from analysis.page.parts import Section
from analysis.read import links
from analysis.report.results import Results

SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
    headline.section,
    sections.published,
    sections.accuracy,
    sections.drop,
    best_section.section,
    sections.cost,
    sections.switches,
    layer_sections.noise,
    layer_sections.ranges,
    layer_sections.classes,
    sections.training,
)


def write(found: Results, path: Path) -> Path:
    """Write the page of `found` to `path`, whose folder must exist, and return `path`."""
    listed = run_table.section(found, path, links.pages(found.runs, found.sweep))
    shown = [*(section(found) for section in SECTIONS), listed, sections.measured(found)]
    text = html.render(
        _title(found), f"Sweep {found.sweep}", [section for section in shown if section is not None]
    )
    path.write_text(text, encoding="utf-8", errors="replace")
    return path


def _title(found: Results) -> str:
    networks = found.marked.drop_duplicates(["model", "dataset"])[["model", "dataset"]].to_dict("records")
    if len(networks) > 1:
        return f"What quantizing {len(networks)} networks costs"
    return f"What quantizing {networks[0]['model']} on {networks[0]['dataset']} costs"
