"""results/README.md says of each kind of file there what it shows."""

from __future__ import annotations

import re

from fakes import ROOT

from analysis.read import published

RESULTS = ROOT / "results"


def test_each_kind_of_file_has_a_line_and_no_line_is_of_another() -> None:
    committed = [folder for folder in RESULTS.iterdir() if folder.is_dir() and folder.name != "quick"]
    kinds = {file.name for folder in committed for file in folder.iterdir()} - {"README.md"}
    lines = re.findall(r"^\| (`.*?) \| (.+?) \| (.+?) \|$", (RESULTS / "README.md").read_text(), re.MULTILINE)
    named = [name for files, *_ in lines for name in re.findall(r"`([\w.-]+)`", files)]
    assert len(kinds) > 20 and set(named) == kinds
    assert len(named) == len(set(named)), "a line for each"


def test_the_page_is_linked_and_names_the_sources_as_the_figures_do() -> None:
    assert "](../results/README.md)" in (ROOT / "docs" / "analysis.md").read_text()
    found, text = published.load(), " ".join((RESULTS / "README.md").read_text().split())
    assert all(found.title(source) in text for source in found.sources)


def test_each_folder_that_has_a_page_of_its_own_is_named() -> None:
    own = {folder.parent.name for folder in RESULTS.glob("*/README.md")}
    (sentence,) = re.findall(r"The folders (.*?) have a README", (RESULTS / "README.md").read_text())
    assert set(re.findall(r"`([\w-]+)`", sentence)) == own
