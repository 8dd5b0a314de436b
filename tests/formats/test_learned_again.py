"""What a recipe learned without training is read by export, not learned again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fakes.exported import Finished

from suite.formats.rebuild import rebuilt
from suite.methods.brecq import Brecq
from suite.recipe import Calibration
from suite.reconstruction.unit_learning import Learning


def test_what_brecq_learned_is_kept_by_its_run_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = Finished(tmp_path)
    recipe = finished.recipe(Brecq(4, 4, iterations=4, batch=16, feed=Calibration(images=32, batch=32)))
    (kept,) = (finished.folders.runs / recipe.key).glob("learned-*.pt")

    def learns(*_: object) -> None:
        raise AssertionError("it learns")

    with monkeypatch.context() as patched:
        patched.setattr(Learning, "iterations", learns)
        read = rebuilt(recipe, finished.folders).model.state_dict()
        kept.unlink()
        with pytest.raises(AssertionError, match="it learns"):
            rebuilt(recipe, finished.folders)
    learned = rebuilt(recipe, finished.folders).model.state_dict()
    assert learned and all(torch.equal(value, read[name]) for name, value in learned.items())
