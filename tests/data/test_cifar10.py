"""Real CIFAR-10 and the public ResNet-20: the numbers that anybody gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from suite.methods.amax import Amax
from suite.methods.k_sigma import KSigma
from suite.methods.linear import Linear
from suite.process.ranks import Ranks
from suite.recipe import Method, Pretrained, Recipe, plan
from suite.record import files
from suite.record.status import status_of
from suite.run.stage import Folders, run
from suite.sweeps import find


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """top-1 of the float network and of three methods, really run on all 10,000 test images."""
    import os

    weights, data = os.environ.get("SUITE_TEST_RESNET20"), os.environ.get("SUITE_TEST_CIFAR10")
    if not weights or not data:
        pytest.skip("SUITE_TEST_RESNET20 and SUITE_TEST_CIFAR10 name no checkpoint and no CIFAR-10")
    listed, _ = find("cifar10").stages(["--weights", weights, "--model", "resnet20", "--sha256", "12fca82f"])
    start = plan(listed)[0]
    assert isinstance(start, Pretrained) and start.sha256 == files.sha256(Path(weights))
    wanted: list[Method] = [KSigma(4), Linear(8, weights_evaluated=False), Amax(8, 8)]
    chosen = [stage for stage in listed if isinstance(stage, Recipe) and stage.method in wanted]
    assert len(chosen) == 3
    folders = Folders(tmp_path_factory.mktemp("runs"), Path(data))
    found = {}
    for stage in plan(chosen):
        run(stage, Ranks(), folders)
        outcome = status_of(stage, folders.runs).outcome
        assert outcome is not None and outcome["images"] == 10_000
        found[stage.name.partition(" seed ")[0]] = outcome["top1"]
    return found


def test_the_float_network_has_its_published_accuracy_exactly(done: dict[str, float]) -> None:
    assert done["pretrained resnet20 cifar10 shortcut A ImageNet normalization 12fca82f"] == 91.73


def test_true_four_bits_by_k_sigma_and_an_integer_input_cost_what_was_found(done: dict[str, float]) -> None:
    """Found once by hand with other code: 56.2 and 46.9; 10 images more or less are float rounding."""
    assert done["k_sigma w4"] == pytest.approx(56.2, abs=0.1)
    assert done["linear w8 no weights evaluated"] == pytest.approx(46.9, abs=0.1)


def test_eight_bits_by_amax_keep_the_accuracy(done: dict[str, float]) -> None:
    assert done["amax w8a8"] == pytest.approx(91.73, abs=0.2)
