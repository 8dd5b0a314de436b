"""Chains of switches, and what each is worth, paired over the test images."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes.explained import FEED, finish, stages
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis.compare import ablation, agreement, configurations
from analysis.compare.significance import paired
from analysis.draw import style, waterfall
from analysis.read import published
from analysis.read.run_folders import load
from analysis.report import ablation_table
from suite import sweeps
from suite.recipe import plan
from suite.recipe.errors import SuiteError
from suite.sweeps.explain import SOURCES, chains
from suite.sweeps.stored import save_sweep

ANSWERS = st.integers(1, 300).flatmap(lambda n: st.tuples(*[arrays(bool, n)] * 2))


def table(runs: Path, source: str, done: int) -> pd.DataFrame:
    """The steps of a source, of whose stages the first `done` were run: stage k has k images of 1,000 wrong."""
    listed = stages(source)
    save_sweep(runs, "explain", {}, listed)
    for wrong, stage in enumerate(listed[:done]):
        finish(runs, stage, np.arange(1000) >= wrong)
    numbers = published.load()
    marked = configurations.mark(load(runs, "explain")[0])
    comparison = agreement.compare(configurations.summarize(marked, numbers), numbers)
    return ablation.steps(marked, comparison, runs)


@pytest.mark.parametrize("source", SOURCES)
def test_the_analysis_finds_the_chains_that_the_sweep_laid(source: str, tmp_path: Path) -> None:
    found = table(tmp_path, source, 0)
    laid = [len(chain) for chain in chains(source, FEED)]
    assert found.groupby("chain").size().tolist() == laid
    assert found.groupby("chain")["switch"].first().tolist() == ["as published"] * len(laid)
    assert (found["switch"] == "as published").sum() == len(laid)


@pytest.mark.parametrize("source", [source for source in SOURCES if source != "004"])
def test_every_chain_begins_with_a_published_number(source: str, tmp_path: Path) -> None:
    found = table(tmp_path, source, 0)
    named = found[found["switch"] == "as published"]["published"]
    assert named.str.contains(f"({source})", regex=False).all(), named.tolist()


def test_ranges_fixed_in_advance_are_one_switch(tmp_path: Path) -> None:
    assert table(tmp_path, "004", 4)["switch"].tolist() == ["as published", "calibrated on 1024 images"] * 2


def test_a_step_is_listed_with_its_switch_its_change_and_its_interval(tmp_path: Path) -> None:
    found = table(tmp_path, "003", 4)
    assert found["switch"].tolist()[:3] == ["as published", "weight bits: 9 → 8", "per layer: on"]
    assert found["top1"].tolist()[:3] == [99.9, 99.8, 99.7]
    assert found["difference"].tolist()[:3] == pytest.approx([-0.1] * 3)  # of the first from float
    text = ablation_table.markdown(found)
    assert "training of its own" not in text and "training of its own" in ablation_table.markdown(
        table(tmp_path, "001", 0)
    )
    assert "| per layer: on | 99.70 | -0.10 | -0.30 to +0.10 | 1.000 |" in text
    assert "| weight bits: 5 → 4 | not run |  |  |  |" in text
    assert "**k_sigma w9**, published as 8 bit, Post-Training Quantization (003): 90.26" in text


def test_no_text_of_the_figure_overlaps_another(tmp_path: Path) -> None:
    found = table(tmp_path, "002", 14)
    figure = waterfall.figure(found, 91.73)
    figure.canvas.draw()
    boxes = [
        text.get_window_extent()
        for axes in figure.axes
        for text in [*axes.texts, *axes.get_yticklabels(), axes.title, axes._left_title]
        if text.get_text()
    ]
    assert len(boxes) > 40
    overlaps = sum(one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[k + 1 :])
    assert overlaps == 0
    assert len(style.save(figure, tmp_path / "waterfall")) == 2


@given(ANSWERS)
def test_a_change_and_its_way_back_are_opposite_and_its_interval_holds_it(
    answers: tuple[np.ndarray, ...],
) -> None:
    there, back = paired(*answers), paired(*reversed(answers))
    assert there["difference"] == -back["difference"]
    assert there["p"] == pytest.approx(back["p"])
    assert there["low"] <= there["difference"] <= there["high"]
    assert there["difference"] == pytest.approx(100 * (answers[1].mean() - answers[0].mean()))


@given(arrays(bool, st.integers(1, 50)))
def test_nothing_changed_is_zero_with_certainty(right: np.ndarray) -> None:
    assert paired(right, right) == {"difference": 0, "low": 0, "high": 0, "p": 1}


def test_p_is_the_two_sided_binomial_of_the_gains() -> None:
    before, after = np.array([True] * 90 + [False] * 10), np.array([True] * 88 + [False] * 2 + [True] * 10)
    tail = sum(math.comb(12, k) for k in range(3)) / 2**12  # 10 gained, 2 lost
    assert paired(before, after)["p"] == pytest.approx(2 * tail)


def test_runs_on_different_numbers_of_images_are_not_compared() -> None:
    assert math.isnan(paired(np.ones(3, bool), np.ones(4, bool))["difference"])


def test_source_001_is_trained_from_scratch_where_asked_and_no_other_source_is(tmp_path: Path) -> None:
    explain = sweeps.find("explain")
    recipes, _ = explain.stages(["--source", "001", "--scratch-epochs", "2"])
    assert len(plan(recipes)) == 5 and {
        recipe.trains_by.epochs for recipe in recipes if recipe.trains_by
    } == {2}
    for words in (["--source", "002"], ["--source", "001", "--weights", str(tmp_path / "w.pt")]):
        with pytest.raises(SuiteError, match="--scratch-epochs is for source 001, without --weights"):
            explain.stages([*words, "--scratch-epochs", "2"])
