"""A float network as one file for others: its card says what the very file scores, and a sweep starts from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fakes.exported import SGD, Finished

from suite.cli.main import main
from suite.export.float_checkpoint import half, is_float, share
from suite.methods.lsq import Lsq
from suite.methods.scheme import Scheme
from suite.recipe import Calibration, Dataset, Pretrained, Training
from suite.recipe.errors import SuiteError
from suite.record.files import sha256
from suite.record.journal import read_outcome
from suite.run.float_stage import load_float
from suite.steps import TrainOn
from suite.sweeps.stored import save_sweep

SOME = Calibration(images=128, batch=64)


def test_the_file_is_the_network_in_half_the_bytes_and_the_card_says_what_it_scores(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training, file = finished.start, tmp_path / "small.safetensors"
    save_sweep(finished.folders.runs, "float", {}, [training])
    folders = ["--runs", str(finished.folders.runs), "--data", str(finished.folders.data)]
    assert main(["export", training.key, "--to", "safetensors", "--out", str(file), *folders]) == 0
    card, outcome = (tmp_path / "small.md").read_text(), read_outcome(finished.folders.runs / training.key)
    assert outcome is not None and outcome["images"] == 599
    assert sha256(file) in card and training.key in card and "| `epochs` | 1 |" in card
    [said] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("top-1 ")]
    top1 = said.split()[1]
    assert f"{top1} % top-1" in card and abs(float(top1) - outcome["top1"]) < 0.5

    again = load_float(
        Pretrained(training.network, training.dataset, str(file), sha256(file)), finished.folders
    )
    before = load_float(training, finished.folders).state_dict()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, before[name].to(torch.float16).to(tensor.dtype)), name


def test_a_network_trained_further_is_shared_with_both_trainings_in_its_card(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    further = finished.recipe(Scheme(32, 32, calibration=None, training=(TrainOn(SGD),)))
    folders = ["--runs", str(finished.folders.runs), "--data", str(finished.folders.data)]
    file = tmp_path / "further.safetensors"
    assert main(["export", further.key, "--to", "safetensors", "--out", str(file), *folders]) == 0
    card, outcome = file.with_suffix(".md").read_text(), read_outcome(finished.folders.runs / further.key)
    assert outcome is not None and f"{outcome['top1']:.2f} % from the float32 weights" in card
    for key in (finished.start.key, further.key):
        assert f"key `{key}`" in card and f"Every setting of `{key}`" in card

    start = Pretrained(finished.start.network, finished.start.dataset, str(file), sha256(file))
    again, before = load_float(start, finished.folders), load_float(finished.start, finished.folders)
    assert not torch.equal(again.get_parameter("stem.weight"), before.get_parameter("stem.weight"))
    assert is_float(further) and not is_float(finished.recipe(Lsq(4, 4, feed=SGD, calibration=SOME)))


def test_what_float16_cannot_hold_and_a_training_that_is_not_done_are_refused(
    finished: Finished, tmp_path: Path
) -> None:
    large = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(large.weight, 1e6)
    with pytest.raises(SuiteError, match="weight holds 1e.06, beyond the largest float16, 65504"):
        half(large)
    other = Training(finished.start.network, Dataset("digits", size=8), finished.start.sgd, seed=7)
    with pytest.raises(SuiteError, match="is not done yet"):
        share(other, finished.folders, tmp_path / "other.safetensors")
    assert not list(tmp_path.iterdir())
