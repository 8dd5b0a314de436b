"""The report: every run is in it, what is unlike is marked, what is broken is named, and nothing read is markup."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fakes import ROOT
from fakes.explained import finish as finish_step
from fakes.explained import stages as explained
from fakes.figures import overlapping, texts, twenty
from fakes.pages import HOSTILE, Elements, metrics, words, written
from fakes.runs_folder import Json, begin, finish, plan, stage
from fakes.sweeps import small
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from analysis.compare import pareto
from analysis.draw import training_curves
from analysis.page import accuracy_sections, write
from analysis.page.parts import Picture, Section
from analysis.read import published, run_folders
from analysis.read.curves import Journal, read_journal
from analysis.report import results
from suite.sweeps.stored import save_sweep


def listed(text: str) -> list[Json]:
    """The rows of the table of all runs."""
    found = re.search(r'<script type="application/json" id="runs-data">(.*?)</script>', text, re.DOTALL)
    assert found
    rows: list[Json] = json.loads(found[1])["rows"]
    return rows


def test_every_run_is_in_the_report_whatever_became_of_it(tmp_path: Path) -> None:
    stages = small(tmp_path / "runs")
    text = written(tmp_path / "runs")
    rows = listed(text)
    assert [row["key"] for row in rows] == [one["key"] for one in stages]
    states = [row["cells"][7][0] for row in rows]
    assert states == ["done", "done", "done", "failed", "pending", "done", "done", *["pending"] * 3]
    assert [row.get("error") for row in rows if row["cells"][7][0] == "failed"] == ["CUDA out of memory"]
    assert rows[3]["folder"] == f"../../runs/{stages[3]['key']}/" and "folder" not in rows[4]
    shown = words(text)
    assert "5 of 10 runs have no result: 1 failed, 4 pending." in shown
    assert "90.50 ± 0.71 · n 2" in shown and "10.00 n 1 of 2" in shown and "failed n 0 of 2" in shown
    assert "✓ reproduced ± 1.92" in shown and "✗ not reproduced ± 0.95" in shown
    assert (
        "Published numbers reproduced 1 of 2 that can be judged, of 20 published; 0 of them measure something else"
        in shown
    )


def test_the_page_is_whole_html_with_one_name_an_id_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    small(tmp_path / "runs")
    text = written(tmp_path / "runs", drawn=True)
    elements = Elements(text).found
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 20
    links = [(tag, a[name]) for tag, a in elements for name in ("href", "src") if a.get(name)]
    assert all(link.startswith(("#", "data:")) for tag, link in links if link and tag != "a")
    assert {link[1:] for _, link in links if link and link.startswith("#")} <= set(ids)
    rest = re.sub(r'xmlns(:xlink)?="[^"]*"', "", text).replace("http-equiv", "")
    addresses = set(re.findall(r"http\S*?(?=[\"<])", rest))
    assert addresses and all(address in "".join(published.load().sources.values()) for address in addresses)
    headings = [tag for tag, _ in elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == "h1" and set(headings[1:]) == {"h2"} and len(headings) > 6
    scopes = [attributes.get("scope") for tag, attributes in elements if tag == "th"]
    assert set(scopes) == {"col", "row"}
    tables = [attributes for tag, attributes in elements if tag == "table"]
    captions = [tag for tag, _ in elements if tag == "caption"]  # a folded table has its summary above
    assert len(tables) == len(captions) + sum("aria-label" in table for table in tables) >= 5
    assert all(a.get("aria-label") for _, a in elements if a.get("role") in ("img", "region"))


def test_nothing_that_was_read_becomes_markup(tmp_path: Path) -> None:
    start = stage("float", 32, 0, model=HOSTILE)
    bad = stage(HOSTILE, 8, 0, start, model=HOSTILE) | {"name": HOSTILE}
    plan(tmp_path / "runs", start, bad)
    finish(tmp_path / "runs", start, 91.0)
    finish(tmp_path / "runs", bad, 90.0)
    begin(tmp_path / "runs", bad, {"event": "failed", "error": HOSTILE}, device=HOSTILE, commit=HOSTILE)
    (tmp_path / "runs" / bad["key"] / "outcome.json").write_text("{")
    text = written(tmp_path / "runs", drawn=True)
    elements = Elements(text).found
    assert [tag for tag, _ in elements].count("script") == 2 and "img" not in [tag for tag, _ in elements]
    assert listed(text)[1]["cells"][0] == [HOSTILE]
    assert "<img" not in text and "<script>document" not in text


def test_a_name_in_dollars_is_a_name_and_no_formula(tmp_path: Path) -> None:
    plan(tmp_path / "runs", stage("$\\frac{$", 8, 0))
    assert "$\\frac{$" in words(written(tmp_path / "runs", drawn=True))


def test_a_number_whose_runs_are_unlike_is_marked_and_the_mark_is_explained(tmp_path: Path) -> None:
    stages = small(tmp_path / "runs")
    begin(tmp_path / "runs", stages[1], {"event": "data", "split": "test", "sha256": "f" * 64}, device="NVIDIA H200",
          versions={"torch": "2.12.0", "python": "3.11.15"})  # fmt: skip
    begin(tmp_path / "runs", stages[0], {"event": "data", "split": "test", "sha256": "e" * 64})
    begin(
        tmp_path / "runs",
        stages[5],
        {"event": "data", "split": "test", "sha256": "e" * 64},
        commit="a" * 40,
        dirty=True,
    )
    finish(tmp_path / "runs", stages[2], 10.0, images=100)
    begin(tmp_path / "runs", stages[2])
    found = results.load(tmp_path / "runs", "small")
    sentences = list(found.differences.words.values())
    assert sentences == [
        "Another device behind this number: NVIDIA H200; in most of the table AMD EPYC, 1 thread.",
        "Another software behind this number: torch 2.12.0; in most of the table torch 2.13.0.",
        "Another state of the code behind this number: aaaaaaaaaa with uncommitted changes; in most of the table a "
        "commit.",
        "Another number of test images behind this number: 100; in most of the table 10,000.",
        "Another checksum of the test data behind this number: ffffffffff; in most of the table eeeeeeeeee.",
    ]
    by_label = dict(zip(found.marked["configuration"], found.marked["name"], strict=True))
    marks = {by_label[name].rpartition(" seed")[0]: "".join(m) for name, m in found.differences.marks.items()}
    assert marks == {"k_sigma w9a32": "abe", "float w32a32": "c", "k_sigma w5a32": "d"}
    text = written(tmp_path / "runs")
    assert "a b e 90.50" in words(text) and all(sentence in words(text) for sentence in sentences)
    ids = [attributes["id"] for _, attributes in Elements(text).found if "id" in attributes]
    marks_of_tables = re.findall(r'href="#([\w-]+-note-[a-e])"', text)
    assert len(ids) == len(set(ids)) and len(marks_of_tables) > 10 and set(marks_of_tables) <= set(ids)


@pytest.mark.parametrize("content", ["", "{", '{"seq": 1, "ti', "[]\n\x00\xff"])
def test_a_broken_journal_and_a_broken_outcome_are_named_and_the_rest_is_shown(
    tmp_path: Path, content: str
) -> None:
    stages = small(tmp_path / "runs")
    (tmp_path / "runs" / stages[1]["key"] / "events.jsonl").write_text(content, encoding="latin-1")
    (tmp_path / "runs" / stages[2]["key"] / "outcome.json").write_text("{")
    text = written(tmp_path / "runs")
    assert "outcome.json is not JSON" in words(text) and len(listed(text)) == 10
    assert "90.50 ± 0.71 · n 2" in words(text)


def test_a_sweep_that_has_not_run_is_reported_as_such(tmp_path: Path) -> None:
    start = stage("float", 32, 0)
    plan(tmp_path / "runs", start, stage("amax", 8, 0, start))
    text = written(tmp_path / "runs")
    assert "2 of 2 runs have no result: 2 pending." in words(text)
    assert [row["cells"][7][0] for row in listed(text)] == ["pending", "pending"]


def test_runs_without_a_loss_and_curves_with_holes_are_named_and_drawn(tmp_path: Path) -> None:
    only = stage("qat_symmetric", 8, 0)
    plan(tmp_path / "runs", only)
    finish(tmp_path / "runs", only, 10.0, loss=None)
    events = [
        metrics(1, train_loss=2.0),
        metrics(1, top1=11.0),
        metrics(2, train_loss=None),
        metrics(2, top1=12.0),
    ]
    begin(tmp_path / "runs", only, *events)
    shown = words(written(tmp_path / "runs"))
    assert "an image whose output is NaN counts as wrong): 1 run of qat_symmetric." in shown
    assert "Training curves" in shown and "qat_symmetric w8a8 1 2" in shown


def test_the_waterfall_is_in_the_report_of_an_explain_sweep_alone(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for sweep in ("explain-003", "plain"):
        save_sweep(runs, sweep, {}, explained("003"))
    for wrong, one in enumerate(explained("003")[:4]):
        finish_step(runs, one, np.arange(1000) >= wrong)
    shown = words(written(runs, "explain-003"))
    assert "What each switch costs" in shown and "per layer: on 99.70 -0.10 -0.30 to +0.10 1.000" in shown
    assert "What each switch costs" not in words(written(runs, "plain"))


@pytest.mark.usefixtures("undrawn")
def test_a_run_elsewhere_is_named_without_a_link(tmp_path: Path) -> None:
    small(tmp_path / "far" / "runs")
    out = tmp_path / "near"
    out.mkdir()
    text = write.write(results.load(tmp_path / "far" / "runs", "small"), out / "report.html")[-1].read_text()
    assert not [row for row in listed(text) if "folder" in row] and str(tmp_path) not in text


def test_a_journal_gives_its_hours_its_data_and_the_curve_that_counts(tmp_path: Path) -> None:
    lines = [
        {"time": 0, "event": "started"},
        {"time": 10, "event": "data", "split": "train", "sha256": "abc"},
        *({"time": 20} | metrics(epoch, train_loss=9.0, top1=float(epoch)) for epoch in (1, 2, 3)),
        {"time": 100, "attempt": 2, "event": "started"},
        {"time": 110} | metrics(3, 2, train_loss=1.0),
        {"time": 111} | metrics(3, 2, top1=33.0),
        {"time": 115} | metrics(4, 1, train_loss=7.0),  # the first attempt, cut off, still writes
        {"time": 130} | metrics(4, 2, train_loss=None, top1=44.0),
    ]
    whole = [json.dumps({"seq": seq, "attempt": 1} | line) for seq, line in enumerate(lines)]
    (tmp_path / "events.jsonl").write_text("\n".join([*whole, '{"seq": 9, "ti']))
    journal = read_journal(tmp_path)
    assert (journal.attempts, journal.run_seconds, journal.data) == (2, 50.0, {"train": "abc"})
    assert journal.curve is not None and journal.curve.epochs.tolist() == [1, 2, 3, 4]
    assert journal.curve.values["top1"].tolist() == [1, 2, 33, 44]
    np.testing.assert_equal(journal.curve.values["train_loss"], np.array([9, 9, 1, np.nan], np.float32))
    assert read_journal(tmp_path / "none") == Journal()


def test_the_band_is_the_median_and_the_ends_of_the_runs_of_a_line(tmp_path: Path) -> None:
    stages = [stage("qat_symmetric", 8, seed) for seed in range(3)]
    plan(tmp_path, *stages)
    for seed, one in enumerate(stages):
        begin(
            tmp_path,
            one,
            *(metrics(e, train_loss=1.0, top1=50.0 + seed * e) for e in range(1, 3 + (seed > 1))),
        )
    found = results.load(tmp_path, "small")
    (band,) = training_curves.bands(found.marked, found.curves, "top1")
    assert (band.label, band.n, band.epochs.tolist()) == ("qat_symmetric w8a8", 3, [1, 2, 3])
    assert (band.low.tolist(), band.median.tolist(), band.high.tolist()) == (
        [50, 50, 56],
        [51, 52, 56],
        [52, 54, 56],
    )


points = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=12)


@given(points)
def test_the_front_is_all_that_nothing_beats(made: list[tuple[int, int]]) -> None:
    table = pd.DataFrame(made, columns=["cost", "top1"])
    front = pareto.front(table, "cost")

    def beaten(row: Any) -> bool:
        return any(c <= row.cost and t >= row.top1 and (c, t) != (row.cost, row.top1) for c, t in made)

    assert sorted(front.index) == [row.Index for row in table.itertuples() if not beaten(row)]
    assert front["cost"].is_monotonic_increasing and front["top1"].is_monotonic_increasing


def test_no_two_texts_of_a_new_figure_overlap_at_twenty_methods(tmp_path: Path) -> None:
    twenty(tmp_path)
    found = results.load(tmp_path, "small")
    pictures = [part for part in accuracy_sections.against_cost(found).parts if isinstance(part, Picture)]
    assert [part.name for part in pictures] == ["size"]
    for part in pictures:
        drawn = texts(part.figure)
        boxes = [Text.get_window_extent(text) for text in drawn]  # an annotation's own holds its line, too
        assert sum(isinstance(text, Annotation) for text in drawn) > 0 and len(drawn) > 25
        assert [(drawn[a].get_text(), drawn[b].get_text()) for a, b in overlapping(boxes)] == []


def test_a_table_and_its_curves_come_from_one_reading_of_each_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, read = small(tmp_path), []
    original = read_journal
    monkeypatch.setattr(
        run_folders, "read_journal", lambda folder: (read.append(folder), original(folder))[1]
    )
    results.load(tmp_path, "small")
    assert len(read) == len(set(read)) == len(stages)


@pytest.mark.long
def test_the_benchmark_writes_a_sweep_that_is_read_and_ends_with_its_json_line() -> None:
    command = [sys.executable, "-m", "benchmarks.analysis", "--runs", "8", "--epochs", "1", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    last = json.loads(done.stdout.splitlines()[-1])
    assert set(last) == {"report_seconds", "peak_gib"} and all(value > 0 for value in last.values())


def test_a_section_adds_its_figure_and_its_files_beside_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A figure or a table is one function and one line of SECTIONS."""
    small(tmp_path)

    def section(found: results.Results) -> Section:
        figure = Figure()
        figure.subplots().set_title(f"{len(found.marked)} runs")
        return Section("mine", "Mine", [Picture("mine", figure, "a title", "")], {"mine.csv": "a,b\n"})

    monkeypatch.setattr(write, "SECTIONS", (*write.SECTIONS, section))
    paths = write.write(results.load(tmp_path, "small"), tmp_path / "report.html")
    assert {tmp_path / name for name in ("mine.svg", "mine.csv")} < set(paths)
    assert paths[-1] == tmp_path / "report.html" and all(path.stat().st_size for path in paths)
    assert "10 runs" in words(paths[-1].read_text()) and (tmp_path / "mine.csv").read_text() == "a,b\n"
