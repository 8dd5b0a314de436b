"""One pass that is exact however it is split, and ranges from it that agree with brute force on the raw values."""

from __future__ import annotations

import io
import math
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.ranks import together
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.ao.quantization.observer import HistogramObserver

from suite.process.ranks import Ranks
from suite.quantizers import histogram, range_search
from suite.quantizers.affine import Grid, fake_quantize
from suite.quantizers.histogram import PATTERNS, Histograms, count, observe
from suite.quantizers.layers import LAYERS
from suite.recipe.errors import SuiteError

SEEDS = st.integers(0, 2**31)
WIDTHS = (8, 6, 4, 3, 2)
KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda x: x,
    "relu": lambda x: x.relu(),
    "heavy tail": lambda x: x**3,
    "relu with an outlier": lambda x: torch.cat([x.relu(), torch.tensor([40.0])]),
    "skewed": lambda x: x.exp() - 0.5,
    "trained": lambda x: (x * (1 + x[0].abs())).relu() ** 1.5,
}


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


def sample(kind: str, seed: int = 0, number: int = 20_000) -> Tensor:
    return KINDS[kind](torch.randn(number, generator=torch.Generator().manual_seed(seed)))


def seen_of(*tensors: Tensor) -> Histograms:
    """An observation of one layer per tensor."""
    watched = [observe(nn.Sequential(nn.Identity()), [x], (nn.Identity,)) for x in tensors]
    return Histograms(
        tuple(str(row) for row in range(len(tensors))),
        torch.cat([one.counts for one in watched]),
        torch.cat([one.low for one in watched]),
        torch.cat([one.high for one in watched]),
    )


def equal(a: Histograms, b: Histograms) -> bool:
    return (
        a.names == b.names
        and torch.equal(a.counts, b.counts)
        and torch.equal(a.low, b.low)
        and torch.equal(a.high, b.high)
    )


def error(x: Tensor, grid: Grid, scale: Tensor, zero_point: Tensor) -> float:
    rounded = fake_quantize(x, scale, zero_point, grid.quant_min, grid.quant_max)
    return float((rounded - x).square().sum(dtype=torch.float64))


@given(SEEDS, st.integers(1, 12), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_an_observation_does_not_depend_on_the_size_or_the_order_of_the_batches(
    seed: int, size: int, random: object
) -> None:
    model, x = whole_numbers(), images(seed)
    batches = list(torch.split(x, size))
    random.shuffle(batches)  # type: ignore[attr-defined]
    whole, cut = observe(model, [x], LAYERS), observe(model, batches, LAYERS)
    assert equal(whole, cut)
    assert whole.values.tolist() == [12 * 3 * 36, 12 * 4 * 16, 12 * 80]


@given(SEEDS, st.integers(1, 11))
@settings(max_examples=30)
def test_parts_merge_to_the_whole_in_either_order(seed: int, cut: int) -> None:
    model, x = whole_numbers(), images(seed)
    first, second = observe(model, [x[:cut]], LAYERS), observe(model, [x[cut:]], LAYERS)
    whole = observe(model, [x], LAYERS)
    assert equal(first.merge(second), whole) and equal(second.merge(first), whole)
    assert equal(whole.merge(observe(model, [], LAYERS)), whole)


RANK = """
import torch
from torch import distributed, nn
from suite.quantizers.histogram import observe
from suite.process.ranks import from_environment
ranks = from_environment()
batches, state = torch.load("inputs.pt")
model = nn.Sequential(
    nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.ReLU(), nn.Flatten(), nn.Linear(80, 7)
)
model.load_state_dict(state)
mine = batches[ranks.rank :: ranks.world_size]
seen = observe(model, mine, (nn.Conv2d, nn.Linear)).sum_over_ranks(ranks)
torch.save((len(mine), seen.state()), f"{ranks.rank}.pt")
distributed.destroy_process_group()
"""


def test_two_gloo_ranks_see_exactly_what_one_process_sees(tmp_path: Path) -> None:
    model, batches = whole_numbers(), list(torch.split(images(5), 5))
    torch.save((batches, model.state_dict()), tmp_path / "inputs.pt")
    together(2, RANK, tmp_path)
    alone = observe(model, [images(5)], LAYERS)
    for rank, expected in enumerate([2, 1]):
        share, state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert share == expected and equal(Histograms.from_state(state), alone)
    assert equal(alone.sum_over_ranks(Ranks()), alone)


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
        assert {place: int(counts[place]) for place in counts.nonzero()[:, 0].tolist()} == expected
        assert (low, high) == torch.aminmax(x.float())
    assert torch.equal(x, kept)


def test_counts_beyond_two_to_the_24_stay_exact() -> None:
    seen = seen_of(torch.ones(2**10))
    for _ in range(30):
        seen = seen.merge(seen)
    assert int(seen.merge(seen_of(torch.ones(1))).values) == 2**40 + 1


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
    with pytest.raises(SuiteError, match="not of the same layers .first difference: 1"):
        seen.merge(observe(model, [images(0)], (*LAYERS, nn.ReLU)))
    with pytest.raises(SuiteError, match="layer 0 saw no tensor"):
        range_search.amax(observe(model, [], LAYERS), WIDTHS)
    with pytest.raises(SuiteError, match="percentile 1.5 is out of range"):
        range_search.percentile(seen, WIDTHS, 1.5)


@given(SEEDS, st.sampled_from(sorted(KINDS)), st.sampled_from([0.001, 0.5, 0.99, 0.999, 0.9999, 1.0]))
def test_amax_is_exact_and_a_percentile_is_kthvalue_in_bfloat16(
    seed: int, kind: str, fraction: float
) -> None:
    x = sample(kind, seed, 500)
    rank = max(1, int(fraction * x.numel()))
    expected = torch.kthvalue(x.abs(), rank).values.bfloat16().float().clamp_max(x.abs().max())
    assert torch.equal(range_search.percentile(seen_of(x), WIDTHS, fraction), expected.expand(1, len(WIDTHS)))
    assert torch.equal(range_search.amax(seen_of(x), WIDTHS), x.abs().max().expand(1, len(WIDTHS)))


@pytest.mark.parametrize("unsigned", [False, True])
def test_mse_is_within_three_percent_of_the_best_of_200_ranges_tried_on_the_raw_values(
    unsigned: bool,
) -> None:
    tensors = {kind: sample(kind, number=8_000) for kind in KINDS}
    found = range_search.mse(seen_of(*tensors.values()), WIDTHS, unsigned)
    tried = 0
    for row, x in enumerate(tensors.values()):
        for width, bits in enumerate(WIDTHS):
            grid = range_search.symmetric_grid(bits, unsigned and bool(x.min() >= 0))
            ladder = x.abs().max() * torch.exp2(-torch.arange(200) / 25)
            best = min(error(x, grid, *grid.symmetric(amax)) for amax in ladder)
            assert error(x, grid, *grid.symmetric(found[row, width])) <= 1.03 * best, (row, bits)
            tried += 1
    assert tried == 30


def test_affine_mse_is_within_two_percent_of_the_best_of_1600_ranges_tried_on_the_raw_values() -> None:
    tensors = {kind: sample(kind, number=3_000) for kind in KINDS}
    lows, highs = range_search.affine_mse(seen_of(*tensors.values()), (8, 4, 2))
    tried = 0
    for row, x in enumerate(tensors.values()):
        for width, bits in enumerate((8, 4, 2)):
            grid = Grid(bits, signed=False)
            ladder = torch.exp2(-torch.arange(40) / 6)
            low = (x.min().clamp_max(0) * ladder).repeat_interleave(40)
            high = (x.max() * ladder).repeat(40)
            scale, zero_point = grid.affine(low, high)
            rounded = fake_quantize(
                x.expand(1600, -1), scale, zero_point, grid.quant_min, grid.quant_max, axis=0
            )
            best = float((rounded - x).square().sum(1, dtype=torch.float64).min())
            chosen = grid.affine(lows[row, width], highs[row, width])
            assert error(x, grid, *chosen) <= 1.02 * best, (row, bits)
            assert x.min().clamp_max(0) <= lows[row, width] <= 0 <= highs[row, width] <= x.max()
            tried += 1
    assert tried == 18


def nvidia_entropy(bins: np.ndarray, bits: int, unsigned: bool, first: int, stride: int) -> int:
    """The loop of pytorch-quantization's `_compute_amax_entropy`; scipy's entropy written out."""
    cells, divergences, arguments = 1 << (bits - 1 + int(unsigned)), [], []
    for i in range(first, len(bins) + 1, stride):
        new_density_counts = np.zeros(cells)
        digitized_space = np.digitize(range(i), np.linspace(0, i, num=cells + 1)) - 1
        digitized_space[bins[:i] == 0] = -1
        for idx, digitized in enumerate(digitized_space):
            if digitized != -1:
                new_density_counts[digitized] += bins[idx]
        for key, val in Counter(digitized_space.tolist()).items():
            if key != -1:
                new_density_counts[key] = new_density_counts[key] / val
        new_density = np.where(digitized_space != -1, new_density_counts[digitized_space], 0.0)
        reference = np.array(bins[:i])
        reference[-1] += np.sum(bins[i:])
        reference, new_density = reference / reference.sum(), new_density / max(new_density.sum(), 1e-300)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(reference > 0, reference * np.log(reference / new_density), 0.0)
        divergences.append(terms.sum())
        arguments.append(i)
    last = len(divergences) - 1 - int(np.argmin(np.array(divergences)[::-1]))
    return arguments[last]


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("stride", [1, 4])
def test_entropy_equals_nvidias_loop_on_the_same_bins(unsigned: bool, stride: int) -> None:
    tensors = {kind: sample(kind, number=3_000) for kind in ("normal", "relu", "heavy tail", "trained")}
    seen = seen_of(*tensors.values())
    bits, bins, first = (6, 4, 3), 256, 32
    found = range_search.entropy(seen, bits, unsigned, bins, first, stride)
    histograms = range_search._equal_bins(seen, bins)
    for row, x in enumerate(tensors.values()):
        expected = [
            nvidia_entropy(histograms[row].numpy(), width, unsigned and bool(x.min() >= 0), first, stride)
            for width in bits
        ]
        assert torch.equal(found[row], x.abs().max() * (torch.tensor(expected) / bins)), (row, expected)


def test_the_equal_bins_of_entropy_are_those_of_the_raw_values_up_to_the_width_of_a_bfloat16() -> None:
    x = sample("normal", number=100_000)
    bins = range_search._equal_bins(seen_of(x), 2048)[0]
    theirs, _ = np.histogram(x.abs().numpy(), bins=2048, range=(0, float(x.abs().max())))
    ours, raw = bins.cumsum(0), torch.from_numpy(theirs).cumsum(0)
    # A bin of a bfloat16 is up to 8 of these wide at the top, where few values are.
    assert float((ours - raw).abs().max()) < 200
    assert int(bins.sum().round()) == pytest.approx(100_000, abs=50)
    assert bins[0] == bins[1]  # as NVIDIA's, so that the zeros after a ReLU do not rule


def test_the_error_is_no_larger_than_torch_aos_at_eight_bits_and_smaller_at_four() -> None:
    tensors = [sample(kind, number=50_000) for kind in KINDS]
    lows, highs = range_search.affine_mse(seen_of(*tensors), (8, 4))
    ratios = torch.empty(2, len(tensors))
    for width, bits in enumerate((8, 4)):
        for row, x in enumerate(tensors):
            theirs = HistogramObserver(dtype=torch.quint8, quant_min=0, quant_max=2**bits - 1)
            theirs.dst_nbins = 2**bits  # as shipped it searches for 256 bins at every width
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs(x)
                low, high = theirs._non_linear_param_search()
            grid = Grid(bits, signed=False)
            ours = error(x, grid, *grid.affine(lows[row, width], highs[row, width]))
            ratios[width, row] = ours / error(x, grid, *grid.affine(low, high))
    assert (ratios[0] <= 1).all(), ratios
    # On one kind both find the same range, up to our steps of 2^(1/16).
    assert (ratios[1] <= 1.001).all() and (ratios[1] < 1).sum() >= 5 and ratios[1].mean() < 0.85, ratios


@pytest.mark.parametrize(
    ("name", "x"),
    [
        ("one value", torch.full((100,), 0.3)),
        ("one negative value", torch.full((100,), -0.3)),
        ("zeros", torch.zeros(100)),
        ("all negative", -sample("relu", number=1000) - 0.1),
        ("huge spread", torch.logspace(-37, 38, 1000)),
        ("denormals", torch.arange(-500, 500) * 1e-42),
        ("the largest floats", torch.tensor([torch.finfo(torch.float32).max, 1.0, -2.0])),
        ("two far apart", torch.tensor([1e-30, 1e30])),
    ],
)
def test_every_range_is_finite_within_the_values_and_fit_for_a_grid(name: str, x: Tensor) -> None:
    seen, bits = seen_of(x), (16, 8, 4, 2)
    largest = x.abs().max()
    for find in (range_search.amax, range_search.percentile, range_search.mse, range_search.entropy):
        found = find(seen, bits)
        assert found.shape == (1, 4) and found.dtype == torch.float32
        assert (found >= 0).all() and (found <= largest).all(), (name, find)
        range_search.symmetric_grid(8).symmetric(found)
    low, high = range_search.affine_mse(seen, bits)
    assert (x.min().clamp_max(0) <= low).all() and (low <= 0).all()
    assert (x.max().clamp_min(0) >= high).all() and (high >= 0).all()
    if name.startswith("one"):
        assert torch.equal(range_search.amax(seen, bits), largest.expand(1, 4))
        assert torch.allclose(range_search.mse(seen, (8,)), largest.expand(1, 1), rtol=0.01)


def test_a_layer_with_negative_values_stays_signed_and_one_without_gains_a_bit() -> None:
    relu, signed = sample("relu"), sample("normal")
    seen = seen_of(relu, signed)
    plain, freed = range_search.mse(seen, (5, 4)), range_search.mse(seen, (5, 4), unsigned=True)
    assert torch.equal(plain[1], freed[1])
    # 15 positive values, as many as the signed grid of one bit more.
    assert torch.equal(freed[0, 1], plain[0, 0])


def test_many_layers_at_once_get_what_each_gets_alone() -> None:
    tensors = [sample(kind, number=2000) * 10.0**power for power, kind in enumerate(KINDS)]
    seen = seen_of(*tensors)
    for find in (range_search.amax, range_search.percentile, range_search.mse, range_search.entropy):
        alone = torch.cat([find(seen_of(x), WIDTHS) for x in tensors])
        assert torch.equal(find(seen, WIDTHS), alone)
    together = torch.stack(range_search.affine_mse(seen, WIDTHS))
    apart = torch.cat([torch.stack(range_search.affine_mse(seen_of(x), WIDTHS)) for x in tensors], dim=1)
    assert torch.equal(together, apart)
