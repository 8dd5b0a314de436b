"""`report.html`: one self-contained page of a sweep, a list of sections each of which is a small function.

A table or figure is added by writing a function from the results to a Section (None where it has nothing to show), in
a file of its own, and naming it in SECTIONS: its pictures are also saved as files, as are the texts in its `files`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from analysis.draw import style
from analysis.page import (
    accuracy_sections,
    best_section,
    glossary_section,
    headline,
    html,
    layer_sections,
    learning_section,
    papers_section,
    run_table,
    sections,
    sensitivity_section,
    width_sections,
)
from analysis.page.parts import Picture, Section
from analysis.read import links
from analysis.report.results import Results
from suite.record.words import counted

SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
    headline.section,
    sections.published,
    papers_section.section,
    accuracy_sections.by_bits,
    accuracy_sections.drop,
    best_section.section,
    accuracy_sections.against_cost,
    sections.switches,
    sensitivity_section.section,
    width_sections.section,
    layer_sections.noise,
    layer_sections.ranges,
    layer_sections.classes,
    sections.training,
    learning_section.section,
)


KINDS = ("svg",)
"""Of the files of a figure, beside those that are asked for."""


def write(
    results: Results,
    page: Path,
    kinds: Sequence[str] = KINDS,
    doing: Callable[[str], None] = lambda words: None,
) -> list[Path]:
    """Write the page of `results` to `page`, whose folder must exist, and beside it the files of its sections and each
    figure as files of these `kinds`; returns the paths, the page last. `doing` hears what is being done."""
    with _uncollected():
        return _write(results, page, kinds, doing)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection: to search the many objects of figures, all in use, takes a tenth of a report."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _write(results: Results, page: Path, kinds: Sequence[str], doing: Callable[[str], None]) -> list[Path]:
    doing(f"drawing {len(SECTIONS)} sections")
    shown = [section for function in SECTIONS if (section := function(results)) is not None]
    shown.append(run_table.section(results, page, links.pages(results.runs, results.sweep)))
    shown += [sections.measured(results), glossary_section.section(results)]
    doing("writing figures and page")
    paths = []
    for section in shown:
        for name, text in section.files.items():
            paths.append(page.with_name(name))
            paths[-1].write_text(text, encoding="utf-8", errors="replace")
        for part in section.parts:
            if isinstance(part, Picture):
                drawn = part.svg if part.filed is None else None
                paths += style.save(part.filed or part.figure, page.with_name(part.name), kinds, drawn)
    networks = {(model, dataset) for model, dataset in results.marked[["model", "dataset"]].to_numpy()}
    text = html.render(title(networks), f"Sweep {results.sweep}", shown)
    page.write_text(text, encoding="utf-8", errors="replace")
    return [*paths, page]


def title(networks: Collection[tuple[str, str]]) -> str:
    """Of a page about these networks, each with its data set."""
    models, datasets = ({pair[at] for pair in networks} for at in (0, 1))
    what = next(iter(models)) if len(models) == 1 else f"{counted(len(models), 'network')}"
    on = next(iter(datasets)) if len(datasets) == 1 else f"{len(datasets)} data sets"
    return f"What quantizing {what} on {on} costs"
