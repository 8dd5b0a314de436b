"""suite.quantize(): any network, images as a tensor or as batches, and clear errors for what is not given."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import ROOT
from fakes.trainings import QUICK, small
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import suite
from suite.methods.amax import Amax
from suite.methods.mse import Mse
from suite.methods.qat_symmetric import QatSymmetric
from suite.quantizers.layers import Quantized
from suite.ranks import Ranks
from suite.recipe import Calibration, Precision, Recipe, Sgd
from suite.recipe.errors import SuiteError
from suite.record.files import Folders
from suite.record.journal import read_outcome
from suite.run.stage import run

SGD = Sgd(epochs=2, batch=8, lr=0.01, precision=Precision("O0"))


def data(count: int = 24) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 32, 32, generator=generator), torch.arange(count) % 10


def test_a_tensor_and_a_data_loader_of_the_drawn_images_give_the_same_model() -> None:
    network, (x, y) = small().eval(), data()
    method = Mse(4, 4, feed=Calibration(images=24, batch=8))
    loader = DataLoader(TensorDataset(x, y), batch_size=5)
    first, second, third = (suite.quantize(network, method, given) for given in (x, loader, [x]))
    with torch.no_grad():
        assert torch.equal(first(x), second(x)) and torch.equal(first(x), third(x))
        assert not first.training and not torch.equal(first(x), network(x))


def test_the_network_that_is_given_stays_as_it_is_and_in_its_mode() -> None:
    network, (x, _) = small().train(), data()
    before = copy.deepcopy(network.state_dict())
    suite.quantize(network, Mse(4, 4, feed=Calibration(24, 8)), x)
    assert network.training and not any(isinstance(m, Quantized) for m in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("batches", [False, True])
def test_a_method_that_trains_moves_the_weights_and_is_the_same_again(batches: bool) -> None:
    network, (x, y) = small(), data()
    given: tuple[Any, ...] = ([(x[:16], y[:16]), (x[16:], y[16:])],) if batches else (x, y)
    models = [suite.quantize(network, QatSymmetric(feed=SGD), *given) for _ in range(2)]
    with torch.no_grad():
        assert torch.equal(models[0](x), models[1](x)) and not torch.equal(models[0](x), network.eval()(x))


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        (Mse(), (), "calibrates on images; give them with quantize"),
        (Mse(), (data()[0],), "calibration wants 1,024 images, but there are only 24"),
        (Mse(), ([data()[0]],), "calibration wants 1,024 images, but the batches have only 24"),
        (QatSymmetric(feed=SGD), (), "the method trains; give quantize.. images with labels"),
        (QatSymmetric(feed=SGD), (data()[0],), "the method trains; give quantize.. images with labels"),
        (QatSymmetric(feed=SGD), (data()[0], torch.zeros(3)), "24 images and 3 labels"),
        (QatSymmetric(feed=SGD, from_scratch=True), data(), "give it with quantize.*untrained=network"),
    ],
)
def test_what_is_missing_is_named(method: Any, given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        suite.quantize(small(), method, *given)


def test_a_run_and_quantize_give_the_same_model(tmp_path: Path) -> None:
    """Of a method that calibrates: the loss of the run's record is that of the model from memory."""
    from suite.data import datasets
    from suite.run.float_stage import load_float
    from suite.train.evaluate import evaluate

    folders = Folders(tmp_path, tmp_path)
    recipe = Recipe(QUICK, Amax(3, 3, Calibration(images=64, batch=32)))
    run(QUICK, Ranks(), folders)
    run(recipe, Ranks(), folders)
    images = datasets.load(QUICK.dataset, "train", tmp_path, torch.device("cpu"))
    batches = images.calibration_batches(recipe.method.feed)  # type: ignore[attr-defined]
    model = suite.quantize(load_float(QUICK, folders), recipe.method, batches)
    test = datasets.load(QUICK.dataset, "test", tmp_path, torch.device("cpu"))
    *_, score = evaluate(model, test, Ranks())
    outcome = read_outcome(tmp_path / recipe.key)
    assert outcome and (outcome["loss"], outcome["correct"]) == (score.loss, score.packed)  # type: ignore[union-attr]


def test_the_notebook_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "methods.md").read_text()
    notebook, *more = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(list(filter(None, notebook.splitlines()))) <= 15
    torch.manual_seed(0)
    fewer = notebook.replace("256", "32")  # images, to save the time
    exec(compile("\n".join([fewer, *more]), "docs/methods.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["amax", "mse", "scheme"]
    assert all(0 < float(line.split()[-1]) < 1 for line in lines)


def test_a_training_that_diverges_in_its_last_step_is_an_error() -> None:
    method = QatSymmetric(feed=Sgd(epochs=1, batch=24, lr=1e38, weight_decay=1e4, precision=Precision("O0")))
    with pytest.raises(SuiteError, match="became inf or NaN in the training; lower the learning rate"):
        suite.quantize(small(), method, *data())
