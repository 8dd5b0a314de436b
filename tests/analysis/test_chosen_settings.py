"""Tables of methods whose settings were chosen say on which images; other tables do not."""

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
