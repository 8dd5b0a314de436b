"""A number is never alone: it has its n, its interval, and a mark where its runs were made differently."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.runs_folder import Json, begin, finish, plan, stage
from fakes.sweeps import small
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import norm, t

from analysis.compare import comparability, configurations, significance
from analysis.read import published
from analysis.read.run_folders import load
from analysis.report import diff, results, tables, terminal

FLOAT = {"epochs": 3, "precision": "O2 float16", "sync_batch_norm": True, "world_size": 1}
QUANTIZED = FLOAT | {"batch_norm": "kept", "edges": "as the rest"}
CASES: dict[str, tuple[Json, str]] = {
    "precision": ({"precision": "O0"}, "Another precision of training behind this number: O0"),
    "more epochs": ({"epochs": 30}, "Another number of epochs behind this number: 30"),
    "trained on": ({"feed_epochs": 2}, "Another number of epochs behind this number: 3 and 2 more"),
    "then O0": (
        {"feed_precision": "O0"},
        "Another precision of training behind this number: O2 float16, then O0",
    ),
    "moved": (
        {"batch_norm": "re-estimated"},
        "Another treatment of BatchNorm behind this number: re-estimated",
    ),
    "batch": (
        {"batch_norm": "of each batch"},
        "Another treatment of BatchNorm behind this number: of each batch",
    ),
    "by rank": (
        {"sync_batch_norm": False, "world_size": 4},
        "Another BatchNorm over ranks behind this number: each rank's share",
    ),
    "edges": (
        {"edges": "last layer float"},
        "Another treatment of the first and the last layer behind this number: last layer float",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_treated_otherwise_is_marked_wherever_its_number_is_shown(
    tmp_path: Path, case: str
) -> None:
    changed, sentence = CASES[case]
    usual = [stage("amax", bits, 0, **QUANTIZED) for bits in (8, 6, 4)]
    params = {name: value for name, value in changed.items() if name != "method"}
    other = stage(changed.get("method", "amax"), 3, 0, **QUANTIZED | params)
    plan(tmp_path, *usual, other)
    for one in (*usual, other):
        finish(tmp_path, one, 90.0)
    found = results.load(tmp_path, "small")
    (letter,) = [mark for mark, words in found.differences.words.items() if words.startswith(f"{sentence};")]
    (marks,) = [row["marks"] for row in found.summary.to_dict("records") if row["weight_bits"] == 3]
    assert letter in marks.split() and set(found.summary["marks"]) == {"", marks}
    for text in (tables.markdown(found), tables.summary(found)):
        assert f"[{letter}] {sentence}" in text and text.count(f"[{marks.replace(' ', ',')}]") >= 1


def test_what_a_label_says_has_no_mark_and_another_commit_none_either(tmp_path: Path) -> None:
    made = [stage("mse", 4, 0, **QUANTIZED | {"batch_norm": words}) for words in ("kept", "re-estimated")]
    plan(tmp_path, *made)
    for one, commit in zip(made, "ab", strict=True):
        finish(tmp_path, one, 90.0)
        begin(tmp_path, one, commit=commit * 40)
    found = results.load(tmp_path, "small")
    assert sorted(found.summary["label"]) == ["mse", "mse, BatchNorm re-estimated"]
    assert found.differences == comparability.Differences({}, {})


def test_a_float_network_has_no_treatment_to_differ_in(tmp_path: Path) -> None:
    start = stage("float", 32, 0, **FLOAT)
    plan(tmp_path, start, stage("amax", 8, 0, start, **FLOAT, batch_norm="re-estimated"))
    for one in (start, stage("amax", 8, 0, start, **FLOAT, batch_norm="re-estimated")):
        finish(tmp_path, one, 90.0)
    assert results.load(tmp_path, "small").differences == comparability.Differences({}, {})


def test_a_float_network_is_not_marked_against_its_own_recipes(tmp_path: Path) -> None:
    trained = FLOAT | {"sync_batch_norm": False, "world_size": 4}
    start = stage("float", 32, 0, **trained)
    made = stage("amax", 8, 0, start, **trained, batch_norm="kept")
    plan(tmp_path, start, made)
    for one in (start, made):
        finish(tmp_path, one, 90.0)
    assert results.load(tmp_path, "small").differences == comparability.Differences({}, {})


def test_a_number_of_a_best_epoch_is_called_one(tmp_path: Path) -> None:
    small(tmp_path)
    text = tables.markdown(results.load(tmp_path, "small"))
    assert text.count(", best epoch") == 2 and {n.id for n in published.load().numbers if n.best} == {
        "003-4bit",
        "003-8bit",
    }


def test_the_readmes_table_has_an_interval_in_each_cell_and_n_where_it_is_not_the_usual(
    tmp_path: Path,
) -> None:
    small(tmp_path)
    text = tables.summary(results.load(tmp_path, "small"))
    cells = re.findall(r"(\d+\.\d\d ±\d+\.\d\d(?: \(.*?\))?) +\|", text)
    assert cells == ["91.50 ±6.35", "90.50 ±6.35", "10.00 ±0.60 (1 of 2)"]
    assert "±: to the farther end of the 95 % interval; n = 2 where no other n is given in brackets." in text


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_one_run_is_wilsons(drawn: tuple[int, int]) -> None:
    right, images = drawn
    low, high = significance.of_share(100 * right / images, images)
    # The roots of (p - share)^2 = z^2 p (1 - p) / images are its ends.
    share, square = right / images, norm.ppf(0.975) ** 2 / images
    ends = np.roots([1 + square, -2 * share - square, share**2])
    assert (low, high) == pytest.approx(tuple(sorted(100 * ends.real)), abs=1e-4)


@given(st.floats(0, 100), st.floats(0, 20), st.integers(2, 9))
def test_the_interval_of_a_mean_is_students_and_never_narrower_than_that_of_one_run(
    mean: float, sd: float, n: int
) -> None:
    low, high = significance.of_mean(mean, sd, n)
    assert (low, high) == pytest.approx(t.interval(0.95, n - 1, mean, sd / math.sqrt(n) or 1e-300), abs=1e-6)
    low, high = significance.of_accuracy(mean, sd, n, 1000)
    one = significance.of_share(mean, 1000)
    assert 0 <= low <= high <= 100
    assert high - low >= min(one[1] - one[0], 100 - max(low, 100 - high)) - 1e-9 or low == 0 or high == 100


def test_a_drop_is_that_of_the_runs_whose_start_can_be_read(tmp_path: Path) -> None:
    """The other's top-1 of 99.8 plus a drop of 60 would be a start of 159.8 %."""
    starts = [stage("float", 32, seed) for seed in (0, 1)]
    ends = [stage("amax", 8, seed, start) for seed, start in enumerate(starts)]
    plan(tmp_path, *starts, *ends)
    for one, top1 in zip((*starts, *ends), (90.0, 95.0, 30.0, 99.8), strict=True):
        finish(tmp_path, one, top1)
    (tmp_path / starts[1]["key"] / "outcome.json").write_text("{")
    row = results.load(tmp_path, "small").summary.set_index("method").loc["amax"]
    assert (row["n"], row["drop"]) == (2, 60.0)
    assert (row["drop_low"], row["drop_high"]) == significance.of_drop(90.0, 30.0, 10_000)
    assert significance.of_drop(100.0 + 1e-14, 100.0, 600) == pytest.approx((0.0, 0.0), abs=1e-6)


def test_without_a_run_there_is_no_interval() -> None:
    found = significance.of_accuracy(math.nan, math.nan, 0, math.nan)
    assert all(map(math.isnan, found))


@pytest.mark.parametrize("width", [80, 100, 140, 200])
def test_a_narrow_terminal_leaves_columns_out_and_cuts_no_number(tmp_path: Path, width: int) -> None:
    small(tmp_path)
    found = results.load(tmp_path, "small")
    (section,) = tables.sections(tables.joined(found.summary, found.comparison))
    console = Console(width=width)
    with console.capture() as caught:
        console.print(
            terminal.table(section.title, tables.COLUMNS, section.rows, tables.COLOURS, tables.LEAST, width)
        )
    shown = caught.get()
    assert "…" not in shown and "90.50 ± 0.71 (2)" in shown and "k_sigma" in shown
    assert ("widen the terminal" in shown) == (width < 200)


def test_a_title_in_square_brackets_is_shown_as_it_is() -> None:
    console = Console(width=80)
    with console.capture() as caught:
        console.print(
            terminal.table(
                "[bold]net[/] on [x]", [("a", False), ("b", False)], [["a" * 24, "[b]"]], {}, [], 80
            )
        )
    assert "[bold]net[/] on [x]" in caught.get() and "[b]" in caught.get()


def test_a_diff_fits_eighty_columns() -> None:
    rows: list[Any] = [["a configuration, with words", *["+10.00"] * 10, "not significant"]]
    rows[0][5] = "\N{MINUS SIGN}10.00 to +10.00"
    console = Console(width=80)
    with console.capture() as caught:
        console.print(terminal.table("", diff.COLUMNS, rows, diff.COLOURS, diff.LEAST, 80))
    assert "not significant" in caught.get() and "\N{MINUS SIGN}10.00 to +10.00" in caught.get()


def test_marks_that_all_cells_of_a_line_have_are_at_its_head(tmp_path: Path) -> None:
    usual = [stage("amax", bits, 0) for bits in (8, 6, 4)]
    other = [stage("histogram", bits, 0) for bits in (8, 4)]
    plan(tmp_path, *usual, *other)
    for one in (*usual, *other):
        finish(tmp_path, one, 90.0)
    for one in other:
        begin(tmp_path, one, device="NVIDIA H200")
    begin(tmp_path, usual[0], device="Arm")
    text = tables.summary(results.load(tmp_path, "small"))
    assert re.search(r"\| histogram \[b\] +\| quantized \| +90.00 ±0.60 \|", text)
    assert re.search(r"\| amax +\| quantized \| 90.00 ±0.60 \[a\] \|", text)


@pytest.mark.parametrize(
    ("other", "said"), [("as the rest", "best, first and last layer 8 bits"), ("8 bits", "best")]
)
def test_a_label_says_how_the_ends_are_treated_where_methods_differ_in_it(
    tmp_path: Path, other: str, said: str
) -> None:
    plan(tmp_path, stage("best", 4, 0, edges="8 bits"), stage("mse", 4, 0, edges=other))
    assert [*configurations.mark(load(tmp_path, "small")[0])["label"]] == [said, "mse"]


def test_runs_that_are_alike_have_no_marks(tmp_path: Path) -> None:
    small(tmp_path)
    assert results.load(tmp_path, "small").differences == comparability.Differences({}, {})
