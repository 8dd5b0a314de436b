"""One pass that is exact however it is split."""

from __future__ import annotations

import io
import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from suite.quantizers.layers import LAYERS
from suite.ranges import histogram, histogram_ranges
from suite.ranges.histogram import PATTERNS, Histograms, count, observe
from suite.recipe.errors import SuiteError

SEEDS = st.integers(0, 2**31)


def integers(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, shape, generator=generator).float()


def whole_numbers() -> nn.Sequential:
    """A network of integers: its float arithmetic is exact, so no batch size or kernel can change a bit of it."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.ReLU(), nn.Flatten(), nn.Linear(80, 7)
    )
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(integers(number, *parameter.shape))
    return model


def images(seed: int, number: int = 12) -> Tensor:
    return integers(seed, number, 3, 6, 6)


def equal(a: Histograms, b: Histograms) -> bool:
    return (
        a.names == b.names
        and torch.equal(a.counts, b.counts)
        and torch.equal(a.low, b.low)
        and torch.equal(a.high, b.high)
    )


@given(SEEDS, st.integers(1, 12), st.randoms(use_true_random=False))
def test_an_observation_does_not_depend_on_the_size_or_the_order_of_the_batches(
    seed: int, size: int, random: object
) -> None:
    model, x = whole_numbers(), images(seed)
    batches = list(torch.split(x, size))
    random.shuffle(batches)  # type: ignore[attr-defined]
    whole, cut = observe(model, [x], LAYERS), observe(model, batches, LAYERS)
    assert equal(whole, cut)
    assert whole.values.tolist() == [12 * 3 * 36, 12 * 4 * 16, 12 * 80]


@given(SEEDS, st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]), st.booleans())
def test_every_value_is_counted_under_its_bfloat16_pattern_however_it_lies_in_memory(
    seed: int, dtype: torch.dtype, rectified: bool
) -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed)).to(dtype)
    x = x.relu() if rectified else x
    x.view(-1)[:2] = torch.tensor([0.0, -0.0])
    kept = x.clone()
    expected = Counter(
        pattern & (PATTERNS - 1) for pattern in x.bfloat16().view(torch.int16).flatten().tolist()
    )
    expected[0] += expected.pop(PATTERNS // 2, 0)  # whether -0.0 comes with negative values or not
    strided = torch.zeros(2, 3, 4, 10, dtype=dtype)[..., ::2].copy_(x)
    for laid in (x, x.contiguous(memory_format=torch.channels_last), x.transpose(0, 2), strided):
        counts, low, high = count(laid)
        assert counts.dtype == torch.int64 and int(counts.sum()) == x.numel()
        assert {pattern: int(counts[pattern]) for pattern in counts.nonzero()[:, 0].tolist()} == expected
        assert (low, high) == torch.aminmax(x.float())
    assert torch.equal(x, kept)


def test_counts_beyond_two_to_the_24_stay_exact() -> None:
    ones = torch.ones(2**23)
    seen = observe(nn.Sequential(nn.Identity()), [ones, ones, ones[:1]], (nn.Identity,))
    assert int(seen.values) == 2**24 + 1


class Shared(nn.Module):
    """One tensor that feeds two layers, and is changed in place before it feeds a third."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.first(x) + self.second(x)
        total += self.third(x.mul_(2))
        return total


def test_a_tensor_that_feeds_two_layers_is_counted_once_and_one_changed_in_place_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    monkeypatch.setattr(histogram, "count", lambda x: calls.append(1) or count(x))  # type: ignore[func-returns-value]
    seen = observe(Shared(), [torch.ones(2, 3)], LAYERS)
    assert len(calls) == 2
    assert torch.equal(seen.counts[0], seen.counts[1]) and not torch.equal(seen.counts[0], seen.counts[2])
    assert seen.high.tolist() == [1, 1, 2] and seen.values.tolist() == [6, 6, 6]


def test_a_state_lies_in_a_checkpoint_and_comes_back_the_same() -> None:
    seen = observe(whole_numbers(), [images(0)], LAYERS)
    file = io.BytesIO()
    torch.save({"model": {}, "observation": seen.state()}, file)
    file.seek(0)
    assert equal(Histograms.from_state(torch.load(file, weights_only=True)["observation"]), seen)
    assert file.getbuffer().nbytes < 20_000


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_by_the_layers_name_and_the_model_is_left_as_it_was(
    value: float,
) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Identity(), nn.Linear(2, 2)).train()
    model[1].eval()
    with torch.no_grad():
        model[0].get_parameter("bias").fill_(value)
    with pytest.raises(SuiteError, match="the input of layer 2: it holds inf or NaN"):
        observe(model, [torch.zeros(1, 2)], LAYERS)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, False, True]


def test_observing_changes_no_statistics_and_no_mode(network: nn.Module) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    observe(network, [torch.randn(4, 3, 32, 32)], LAYERS)
    assert all(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_each_mistake_has_a_message_that_names_it() -> None:
    model = whole_numbers()
    seen = observe(model, [images(0)], LAYERS)
    with pytest.raises(SuiteError, match="no LSTM to observe"):
        observe(model, [images(0)], (nn.LSTM,))
    with pytest.raises(SuiteError, match="layer 0: an empty tensor"):
        observe(nn.Sequential(nn.Identity()), [torch.zeros(0, 3)], (nn.Identity,))
    with pytest.raises(SuiteError, match="layer 0 gets no tensor"):
        observe(nn.Sequential(nn.Identity()), [[torch.zeros(1)]], (nn.Identity,))  # type: ignore[list-item]
    with pytest.raises(SuiteError, match="layer 0 saw no tensor"):
        histogram_ranges.amax(observe(model, [], LAYERS), [8])
    with pytest.raises(SuiteError, match="percentile 1.5 is out of range"):
        histogram_ranges.percentile(seen, [8], 1.5)
