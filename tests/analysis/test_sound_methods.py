"""The table of a README has what is sound and not treated, and says on which images settings were chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.pages import words, written
from fakes.runs_folder import finish, plan, stage

from analysis.report import results, sound_methods, tables

SENTENCE = "The settings of best were chosen on 2,000 training images of CIFAR-10 that no calibration draws"


@pytest.mark.parametrize(("method", "is_said"), [("best", True), ("mse", False)])
def test_a_table_with_learned_rounding_says_that_no_test_image_chose_its_settings(
    tmp_path: Path, method: str, is_said: bool
) -> None:
    runs = tmp_path / "runs"
    start = stage("float", 32, 0)
    own = stage(method, 4, 0, start)
    plan(runs, start, own)
    finish(runs, start, 91.0)
    finish(runs, own, 90.5)
    found = results.load(runs, "small")
    notes = [line for line in tables.notes(found) if SENTENCE in line and "test images chose nothing" in line]
    assert bool(notes) == (SENTENCE in sound_methods.table(found)) == is_said
    assert (SENTENCE in words(written(runs))) == is_said


def test_treatments_of_batch_norm_and_of_the_ends_are_left_to_tables_of_their_own(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    start = stage("float", 32, 0)
    own = {
        90.1: stage("mse", 4, 0, start, batch_norm="kept", edges="as the rest"),
        90.2: stage("mse", 4, 0, start, batch_norm="re-estimated", edges="as the rest"),
        90.3: stage("mse", 4, 0, start, batch_norm="kept", edges="8 bits"),
        90.4: stage("builtin_int8", 8, 0, start, batch_norm="folded", edges="as the rest"),
    }
    plan(runs, start, *own.values())
    finish(runs, start, 91.0)
    for top1, one in own.items():
        finish(runs, one, top1)
    shown = sound_methods.table(results.load(runs, "small"))
    assert [f"{top1:.2f}" in shown for top1 in own] == [True, False, False, True]
