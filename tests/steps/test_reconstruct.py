"""No unit ends worse than rounding to nearest, and a run that is stopped in one goes on to the same bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.networks import Branching
from fakes.reconstructing import Recording, reconstructed, short
from fakes.residual import CALIBRATION, Residual, images, prepared, residual
from fakes.stopping import attempts_of
from fakes.trainings import QUICK
from torch import Tensor, nn
from torch.nn import functional as F

from suite.methods.qdrop import Qdrop
from suite.methods.scheme import Scheme
from suite.quantizers.layers import Quantized
from suite.ranks import Ranks
from suite.recipe import Calibration, Recipe
from suite.recipe.errors import SuiteError
from suite.recipe.method import Step
from suite.reconstruction.learned_rounding import LearnedRounding
from suite.reconstruction.network_learning import Reconstruction, values
from suite.reconstruction.unit_learning import Settings
from suite.reconstruction.units import run
from suite.record.files import Folders
from suite.record.journal import read_events, read_outcome
from suite.run import stage
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized
from suite.steps import Bake, Reconstruct

BAD_RATES = (float("inf"), float("nan"), -1.0)


@pytest.mark.parametrize("unit", ["layer", "block"])
@pytest.mark.parametrize(
    ("learns", "drop"), [("rounding", 0.0), ("steps", 0.0), ("both", 0.0), ("both", 0.5)]
)
def test_no_unit_ends_worse_than_rounding_to_nearest(unit: Any, learns: Any, drop: float) -> None:
    _, feed = reconstructed(residual(), short(unit=unit, learns=learns, drop=drop))
    units = feed.kept[f"reconstruction-{learns}.json"]["units"]
    assert len(units) == (4 if unit == "block" else 6)
    assert all(unit["error"] <= unit["error_nearest"] for unit in units)
    assert any(unit["error"] < unit["error_nearest"] for unit in units)


def test_the_recorded_errors_are_those_of_the_model_that_comes_out() -> None:
    """The last unit's error is that of the logits, of the whole network, summed over classes."""
    network, x = residual(), images()
    model, feed = reconstructed(network, short())
    with torch.no_grad():
        error = (model(x) - network(x)).square().sum(1).mean()
    recorded = feed.kept["reconstruction-both.json"]["units"][-1]["error"]
    assert recorded == pytest.approx(float(error), rel=1e-4)


def test_what_ends_worse_is_rounded_to_nearest_in_the_old_steps() -> None:
    """A learning rate that sends every weight and step astray."""
    network = residual()
    astray, feed = reconstructed(network, short(lr=100.0, step_lr=3.0, iterations=5))
    units = feed.kept["reconstruction-both.json"]["units"]
    assert not any(unit["kept"] for unit in units[1:-1])
    model = prepared(network)
    nearest = Bake().apply(model, InMemoryFeed(network))
    for name, layer in nearest.named_modules():
        if name.startswith("blocks") and isinstance(layer, Quantized):
            other = astray.get_submodule(name)
            assert torch.equal(layer.layer.weight, other.layer.weight)  # type: ignore[arg-type, union-attr]
            assert layer.input and torch.equal(layer.input.scale, other.input.scale)  # type: ignore[union-attr]


def test_biases_are_learned_where_asked_for_and_lower_the_error() -> None:
    (_, without), (model, having) = (reconstructed(residual(), short(bias_lr=lr)) for lr in (0.0, 0.01))
    errors = [feed.kept["reconstruction-both.json"]["units"][1]["error"] for feed in (without, having)]
    assert errors[1] < errors[0]
    before = residual().get_parameter("blocks.0.conv1.bias")
    after = model.get_submodule("blocks.0.conv1").layer.bias  # type: ignore[union-attr]
    assert not torch.equal(before, after)  # type: ignore[arg-type]


def test_equal_seeds_give_equal_models_and_other_seeds_others() -> None:
    x = images()
    with torch.no_grad():
        first, again, other = (reconstructed(residual(), short(drop=0.5, seed=n))[0](x) for n in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_progress_tells_unit_errors_and_time_left() -> None:
    _, feed = reconstructed(residual(), short())
    assert feed.parts == sorted(feed.parts) and feed.parts[-1] == 1
    assert feed.doings[0].startswith("reconstruct stem, 1 of 4, error ") and feed.doings[0].endswith(
        " s left"
    )
    assert " before, " in feed.doings[20] and " now, " in feed.doings[20]


def test_the_rounding_stays_and_activations_are_rounded_after_the_first_phase() -> None:
    feed = Recording(residual(), images())
    *steps, _ = Scheme(3, 3, calibration=CALIBRATION).steps()
    model = quantized([*steps, short(learns="rounding")], feed)
    layers = [module for module in model.modules() if isinstance(module, Quantized)]
    assert all(layer.input is not None for layer in layers)
    assert any(isinstance(layer.weight, LearnedRounding) for layer in layers)


def test_in_bfloat16_it_learns_as_well_and_the_errors_stay_those_of_float32() -> None:
    """Within 10 % of the error, which is measured in float32: that of the model that comes out."""
    network, x = residual(), images()
    (_, whole), (model, low) = (
        reconstructed(network, short(bfloat16=value, drop=0.5)) for value in (False, True)
    )
    errors = [feed.kept["reconstruction-both.json"]["units"][-1]["error"] for feed in (whole, low)]
    assert errors[1] == pytest.approx(errors[0], rel=0.1)
    with torch.no_grad():
        assert float((model(x) - network(x)).square().sum(1).mean()) == pytest.approx(errors[1], rel=1e-4)
    floats = [value for value in model.state_dict().values() if value.is_floating_point()]
    assert {value.dtype for value in floats} == {torch.float32}


class Reshaping(nn.Module):
    """Halves of the images become images of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x).reshape(-1, 4, 8, 16)).mean((2, 3))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("network", "step", "message"),
    [
        (
            Reshaping,
            short(),
            r"shape \[48, 4, 8, 16\] for 24 images; the first dimension .* that of the batch",
        ),
        (Branching, short(), "torch.fx cannot trace the network .*so its blocks are not known"),
        (
            Residual,
            short(batch=25, calibration=Calibration(25, 5)),
            "calibration wants 25 images|batches of 25 images, but the calibration has only 24; give more images",
        ),
    ],
)
def test_what_it_cannot_do_is_an_error_with_what_to_do(network: Any, step: Reconstruct, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        reconstructed(network().eval(), step)


def test_it_comes_after_insert_and_before_bake() -> None:
    feed = InMemoryFeed(residual(), images())
    with pytest.raises(SuiteError, match="no layer with quantizers; a reconstruction comes after Insert"):
        short().apply(residual(), feed)
    with pytest.raises(SuiteError, match="rounded already; a reconstruction comes before Bake"):
        short().apply(Bake().apply(prepared(residual()), feed), feed)


@pytest.mark.parametrize(
    "settings",
    [
        *({"unit": "stage"}, {"learns": "all"}, {"iterations": 0}, {"batch": 0}, {"drop": 1.0}, {"lr": 0.0}),
        *({"beta": beta} for beta in ((2.0, 20.0), (0.0, -1.0), (20.0, 0.5), (float("inf"), 2.0), (2.0,))),
        *({name: value} for name in ("strength", "bias_lr", "weight_step_lr") for value in BAD_RATES),
        {"batch": 25},
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(SuiteError, match=next(iter(settings))):
        short(**settings)


@dataclass(frozen=True)
class Twice(Qdrop):
    """Two long steps, so that the first one's end lies in the second one's state."""

    def steps(self) -> tuple[Step, ...]:
        *before, first, bake = super().steps()
        assert isinstance(first, Reconstruct)
        first = replace(first, bias_lr=1e-3)
        return (*before, first, replace(self.reconstruct("network", "steps"), bias_lr=1e-3), bake)


def test_a_run_that_is_stopped_goes_on_in_its_unit_to_the_same_bits(tmp_path: Path) -> None:
    method = Twice(3, 3, iterations=5, batch=8, feed=Calibration(8, 8), weight_step_lr=1e-2, views=1)
    recipe = Recipe(QUICK, method)
    whole, parts = (Folders(tmp_path / name, tmp_path) for name in ("whole", "parts"))
    for folders in (whole, parts):
        stage.run(QUICK, Ranks(), folders)
    stage.run(recipe, Ranks(), whole)
    attempts_made = attempts_of(recipe, parts, checks=7)
    expected, found = (read_outcome(folders.runs / recipe.key) for folders in (whole, parts))
    assert expected and found and attempts_made > 2
    assert (found["loss"], found["correct"]) == (expected["loss"], expected["correct"])
    events = read_events(parts.runs / recipe.key)
    assert len([event for event in events if event["event"] == "resumed"]) == attempts_made - 1
    parts_of_steps = [event["reason"].split("of ")[0] for event in events if event["event"] == "interrupted"]
    assert parts_of_steps[-1] == "stopped at 60% ", "inside the second step's only unit"
    records = [
        (folders.runs / recipe.key / "artifacts" / f"reconstruction-{learns}.json").read_text()
        for learns in ("both", "steps")
        for folders in (whole, parts)
    ]
    assert records[0] == records[1] and records[2] == records[3]


def test_a_network_without_blocks_learns_layer_by_layer() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(576, 10))
    _, feed = reconstructed(plain.eval(), short(iterations=3))
    units = feed.kept["reconstruction-both.json"]["units"]
    assert [unit["layers"] for unit in units] == [["0"], ["2"], ["4"]]


def test_the_record_says_which_part_of_each_weight_is_not_rounded_to_nearest() -> None:
    network = residual()
    model, feed = reconstructed(network, short(learns="rounding"))
    nearest = Bake().apply(prepared(network), InMemoryFeed(network))
    for unit in feed.kept["reconstruction-rounding.json"]["units"]:
        assert list(unit["turned"]) == unit["layers"]
        for name, part in unit["turned"].items():
            one, other = (found.get_submodule(name).layer.weight for found in (model, nearest))  # type: ignore[union-attr]
            assert part == pytest.approx(float((one != other).double().mean()), abs=1e-5)  # type: ignore[union-attr]


def test_fisher_weighs_by_the_gradient_of_the_divergence_and_ends_no_worse_than_nearest() -> None:
    model, x = prepared(residual()), images()
    settings = short(fisher=True, batch=24)
    names = Settings.__dataclass_fields__
    made = Reconstruction(model, Settings(**{name: getattr(settings, name) for name in names}))
    part = made.parts[1]
    before = values(made.model, made.parts[0].nodes, made.parts[0].input, part.input, x)
    given, _, target = made.caches(part, part.units[0], before, before)
    y = run(made.model, part.nodes, {part.input: given}, part.output).detach().requires_grad_()
    later = [node for part in made.parts[2:] for node in part.nodes]
    logits, wanted = (run(made.float, later, {part.output: at}, later[-1]) for at in (y, target))
    divergence = F.kl_div(logits.log_softmax(1), wanted.softmax(1), reduction="batchmean")
    (gradient,) = torch.autograd.grad(divergence, y)
    found = made.fisher(part.units[0], given, target)
    torch.testing.assert_close(found, (gradient.abs() + 1).square())
    _, feed = reconstructed(residual(), short(fisher=True))
    units = feed.kept["reconstruction-both.json"]["units"]
    assert all(unit["error"] <= unit["error_nearest"] for unit in units)
    with pytest.raises(SuiteError, match="fisher weighs the outputs of blocks; unit is 'layer'"):
        short(fisher=True, unit="layer")


def test_activations_that_are_not_finite_are_refused_by_name() -> None:
    model, x = prepared(residual()), images()
    made = Reconstruction(model, Settings(**{n: getattr(short(), n) for n in Settings.__dataclass_fields__}))
    with pytest.raises(SuiteError, match="the output of .* inf or NaN"):
        made.run(x * float("inf"), None, lambda *_: None)
