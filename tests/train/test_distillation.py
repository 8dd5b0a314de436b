"""A training by a teacher: its loss is that of torch, and a quantized network learns the float one's answers."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from fakes.learned import learning
from fakes.trainings import digits, small
from torch.nn import functional as F

from suite.methods.lsq import Lsq
from suite.ranks import Ranks
from suite.recipe import Dataset, Precision, Sgd
from suite.recipe.errors import SuiteError
from suite.run.in_memory import InMemoryFeed
from suite.steps import Distillation, TrainOn
from suite.train.distillation import Renormalized, taught_by
from suite.train.fit import fit

SGD = Sgd(1, 20, 0.01, pad=1, flip=False, precision=Precision("O0"))


@pytest.mark.parametrize("labels", [0.0, 0.3])
def test_the_loss_is_torchs_kl_div_of_the_batchs_mean_times_the_square_of_the_temperature(
    labels: float,
) -> None:
    x, right = digits(8).normalized(digits(8).pixels), digits(8).labels
    teacher, logits = small(), torch.randn(8, 10, requires_grad=True)
    loss = taught_by(teacher, 4.0, labels)(x, logits, right) / 8
    with torch.no_grad():
        answers = F.softmax(teacher.eval()(x) / 4, dim=1)
    expected = F.kl_div(F.log_softmax(logits / 4, dim=1), answers, reduction="batchmean") * 4**2
    expected = expected + labels * F.cross_entropy(logits, right)
    assert torch.allclose(loss, expected, rtol=1e-6)
    mine, theirs = (torch.autograd.grad(one, logits)[0] for one in (loss, expected))
    assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-8)


def test_the_teacher_is_a_copy_that_evaluates_and_does_not_train() -> None:
    network = small().train()
    before = copy.deepcopy(network.state_dict())
    taught = taught_by(network, 4.0, 0.0)
    taught(torch.randn(4, 3, 8, 8), torch.randn(4, 10), torch.zeros(4, dtype=torch.int64))
    assert network.training and not any(p.requires_grad for p in taught.teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in taught.teacher.state_dict().items())


def test_a_quantized_network_comes_to_answer_as_the_float_one() -> None:
    """Labels that say nothing do no harm where they are not asked."""
    images = digits(60)
    network = small()
    for _ in fit(network, images, Sgd(6, 20, 0.1, pad=0, flip=False, precision=Precision("O0")), 0, Ranks()):
        pass
    x = images.normalized(images.pixels)
    wrong = torch.zeros_like(images.labels)
    feed = InMemoryFeed(network.eval(), x, wrong)
    left = []
    for distillation in (Distillation(), None):
        model = learning(Lsq(3, 3, first_last=3), network)
        TrainOn(Sgd(3, 20, 0.02, precision=Precision("O0")), distillation).apply(model, feed)
        with torch.no_grad():
            own = F.log_softmax(model.eval()(x), dim=1)
            left.append(float(F.kl_div(own, F.softmax(network(x), dim=1), reduction="batchmean")))
    assert left[0] < 0.5 * left[1]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(SuiteError, match="Distillation.temperature must be above 0, got 0"):
        Distillation(0)
    with pytest.raises(SuiteError, match="Distillation.labels must be 0 or more, got -1"):
        Distillation(labels=-1)


def test_a_method_hands_its_distillation_to_its_training(tmp_path: Path) -> None:
    (step,) = (step for step in Lsq(distillation=Distillation(2.0)).steps() if isinstance(step, TrainOn))
    assert step.distillation == Distillation(2.0) and step.trains == Lsq().feed


def test_a_teacher_sees_images_normalized_as_it_was_trained_with() -> None:
    given, own = (
        Dataset("digits", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
        Dataset("digits", (0.1,) * 3, (0.6,) * 3),
    )
    pixels = torch.rand(4, 3, 8, 8)
    seen: list[torch.Tensor] = []

    class Seeing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x

    mean, std = (torch.tensor(one)[:, None, None] for one in (given.mean, given.std))
    Renormalized(Seeing(), given, own)((pixels - mean) / std)
    assert torch.allclose(seen[0], (pixels - 0.1) / 0.6, atol=1e-6)
