"""A network that is made again is that of its run: what was learned is read, and as many threads compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.exported import Finished

from suite.formats import rebuild
from suite.formats.rebuild import rebuilt
from suite.methods.amax import Amax
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


def test_a_network_is_made_again_on_as_many_threads_as_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two threads instead of one, `percentile` of 3 bits in train mode answered 149 of 599 images otherwise."""
    finished = Finished(tmp_path)
    recipe = finished.recipe(Amax(4, 4))
    counts = []

    def counted(*args: Any) -> Any:
        counts.append(torch.get_num_threads())
        return quantized(*args)

    quantized = rebuild.quantized
    monkeypatch.setattr(rebuild, "quantized", counted)
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        rebuilt(recipe, finished.folders)
        assert (counts, torch.get_num_threads()) == ([before], before + 1)
    finally:
        torch.set_num_threads(before)
