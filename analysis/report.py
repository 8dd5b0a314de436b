"""`report.html`: one self-contained page of a sweep, a list of sections each of which is a small function.

A section is added by writing a function from the results to a Section (None where it has nothing to say) and naming
it in SECTIONS.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from analysis import below, best, headline, listing, page, sections, tracked
from analysis.page import Section
from analysis.results import Results

SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
    headline.section,
    sections.published,
    sections.accuracy,
    sections.drop,
    best.section,
    sections.cost,
    sections.switches,
    below.noise,
    below.ranges,
    below.classes,
    sections.training,
)


def write(found: Results, path: Path) -> Path:
    """Write the page of `found` to `path`, whose folder must exist, and return `path`."""
    listed = listing.section(found, path, tracked.pages(found.runs, found.sweep))
    shown = [*(section(found) for section in SECTIONS), listed, sections.measured(found)]
    text = page.render(
        _title(found), f"Sweep {found.sweep}", [section for section in shown if section is not None]
    )
    path.write_text(text, encoding="utf-8", errors="replace")
    return path


def _title(found: Results) -> str:
    networks = found.marked.drop_duplicates(["model", "dataset"])[["model", "dataset"]].to_dict("records")
    if len(networks) > 1:
        return f"What quantizing {len(networks)} networks costs"
    return f"What quantizing {networks[0]['model']} on {networks[0]['dataset']} costs"
