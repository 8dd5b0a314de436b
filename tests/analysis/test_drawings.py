"""A report draws no figure twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.sweeps import small
from matplotlib.figure import Figure

from analysis.page import accuracy_sections, write
from analysis.report import results


def test_a_figure_is_drawn_once_for_its_page_and_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing is most of the time of a report."""
    small(tmp_path)
    drawn, draw = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda self, to: (drawn.append(id(self)), draw(self, to)))
    monkeypatch.setattr(write, "SECTIONS", (accuracy_sections.by_bits,))
    paths = write.write(results.load(tmp_path, "small"), tmp_path / "report.html")
    assert tmp_path / "accuracy.svg" in paths and "accuracy-figure" in paths[-1].read_text()
    assert len(drawn) == len(set(drawn)) == 2, "on the page and in its file; for a phone"
