"""A report draws no figure twice, and its figures write numbers as axes do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fakes.figures import every_kind, texts
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


def test_no_number_of_a_figure_has_a_hyphen_for_a_minus_sign(tmp_path: Path) -> None:
    found = [text.get_text() for figure in every_kind(tmp_path) for text in texts(figure)]
    assert [text for text in found if re.search(r"(^|[ (])-\d", text)] == []
    assert sum("\N{MINUS SIGN}" in text for text in found) > 20
