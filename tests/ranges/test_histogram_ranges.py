"""Ranges of histograms agree with brute force on the raw values, with NVIDIA's loop and with torch.ao."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from fakes.histograms import KINDS, error, sample, seen_of
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.ao.quantization.observer import HistogramObserver

from suite.arithmetic.affine import Grid, fake_quantize
from suite.ranges import histogram_ranges

SEEDS = st.integers(0, 2**31)


WIDTHS = (8, 6, 4, 3, 2)


@given(SEEDS, st.sampled_from(sorted(KINDS)), st.sampled_from([0.001, 0.5, 0.99, 0.999, 0.9999, 1.0]))
def test_amax_is_exact_and_a_percentile_is_kthvalue_in_bfloat16(
    seed: int, kind: str, fraction: float
) -> None:
    x = sample(kind, seed, 500)
    rank = max(1, int(fraction * x.numel()))
    expected = torch.kthvalue(x.abs(), rank).values.bfloat16().float().clamp_max(x.abs().max())
    assert torch.equal(
        histogram_ranges.percentile(seen_of(x), WIDTHS, fraction), expected.expand(1, len(WIDTHS))
    )
    assert torch.equal(histogram_ranges.amax(seen_of(x), WIDTHS), x.abs().max().expand(1, len(WIDTHS)))


@pytest.mark.parametrize("unsigned", [False, True])
def test_mse_is_within_three_percent_of_the_best_of_200_ranges_tried_on_the_raw_values(
    unsigned: bool,
) -> None:
    tensors = {kind: sample(kind, number=8_000) for kind in KINDS}
    found = histogram_ranges.mse(seen_of(*tensors.values()), WIDTHS, unsigned)
    tried = 0
    for row, x in enumerate(tensors.values()):
        for width, bits in enumerate(WIDTHS):
            grid = histogram_ranges.symmetric_grid(bits, unsigned and bool(x.min() >= 0))
            ladder = x.abs().max() * torch.exp2(-torch.arange(200) / 25)
            best = min(error(x, grid, *grid.symmetric(amax)) for amax in ladder)
            assert error(x, grid, *grid.symmetric(found[row, width])) <= 1.03 * best, (row, bits)
            tried += 1
    assert tried == 30


def test_affine_mse_is_within_two_percent_of_the_best_of_1600_ranges_tried_on_the_raw_values() -> None:
    tensors = {kind: sample(kind, number=3_000) for kind in KINDS}
    lows, highs = histogram_ranges.affine_mse(seen_of(*tensors.values()), (8, 4, 2))
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
    found = histogram_ranges.entropy(seen, bits, unsigned, bins, first, stride)
    histograms = histogram_ranges._equal_bins(seen, bins)
    histograms[:, 0] = histograms[:, 1]  # as NVIDIA has it, so that the zeros after a ReLU do not rule
    for row, x in enumerate(tensors.values()):
        expected = [
            nvidia_entropy(histograms[row].numpy(), width, unsigned and bool(x.min() >= 0), first, stride)
            for width in bits
        ]
        assert torch.equal(found[row], x.abs().max() * (torch.tensor(expected) / bins)), (row, expected)


def test_the_equal_bins_of_entropy_are_those_of_the_raw_values_up_to_the_width_of_a_bfloat16() -> None:
    x = sample("normal", number=100_000)
    bins = histogram_ranges._equal_bins(seen_of(x), 2048)[0]
    theirs, _ = np.histogram(x.abs().numpy(), bins=2048, range=(0, float(x.abs().max())))
    ours, raw = bins.cumsum(0), torch.from_numpy(theirs).cumsum(0)
    # A bin of a bfloat16 is up to 8 of these wide at the top, where few values are.
    assert float((ours - raw).abs().max()) < 200
    assert int(bins.sum().round()) == pytest.approx(100_000, abs=50)


def test_the_error_is_no_larger_than_torch_aos_at_eight_bits_and_smaller_at_four() -> None:
    tensors = [sample(kind, number=50_000) for kind in KINDS]
    lows, highs = histogram_ranges.affine_mse(seen_of(*tensors), (8, 4))
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
    for find in (
        histogram_ranges.amax,
        histogram_ranges.percentile,
        histogram_ranges.mse,
        histogram_ranges.entropy,
    ):
        found = find(seen, bits)
        assert found.shape == (1, 4) and found.dtype == torch.float32
        assert (found >= 0).all() and (found <= largest).all(), (name, find)
        histogram_ranges.symmetric_grid(8).symmetric(found)
    low, high = histogram_ranges.affine_mse(seen, bits)
    assert (x.min().clamp_max(0) <= low).all() and (low <= 0).all()
    assert (x.max().clamp_min(0) >= high).all() and (high >= 0).all()
    if name.startswith("one"):
        assert torch.equal(histogram_ranges.amax(seen, bits), largest.expand(1, 4))
        assert torch.allclose(histogram_ranges.mse(seen, (8,)), largest.expand(1, 1), rtol=0.01)


def test_a_layer_with_negative_values_stays_signed_and_one_without_gains_a_bit() -> None:
    relu, signed = sample("relu"), sample("normal")
    seen = seen_of(relu, signed)
    plain, freed = histogram_ranges.mse(seen, (5, 4)), histogram_ranges.mse(seen, (5, 4), unsigned=True)
    assert torch.equal(plain[1], freed[1])
    # 15 positive values, as many as the signed grid of one bit more.
    assert torch.equal(freed[0, 1], plain[0, 0])


def test_many_layers_at_once_get_what_each_gets_alone() -> None:
    tensors = [sample(kind, number=2000) * 10.0**power for power, kind in enumerate(KINDS)]
    seen = seen_of(*tensors)
    for find in (
        histogram_ranges.amax,
        histogram_ranges.percentile,
        histogram_ranges.mse,
        histogram_ranges.entropy,
    ):
        alone = torch.cat([find(seen_of(x), WIDTHS) for x in tensors])
        assert torch.equal(find(seen, WIDTHS), alone)
    together = torch.stack(histogram_ranges.affine_mse(seen, WIDTHS))
    apart = torch.cat([torch.stack(histogram_ranges.affine_mse(seen_of(x), WIDTHS)) for x in tensors], dim=1)
    assert torch.equal(together, apart)
