"""Calibrators of NVIDIA's interface answer what NVIDIA's do."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from fakes.tensors import randn
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from suite.pytorch_quantization import (
    HistogramCalibrator,
    MaxCalibrator,
    fake_tensor_quant,
)
from suite.ranges.range_search import divergences

SEEDS = st.integers(0, 2**31)


@pytest.fixture
def nvidia() -> Any:
    return pytest.importorskip(
        "modelopt.torch.quantization",
        reason="nvidia-modelopt, the heir of NVIDIA's package, is not installed (0.47.0 is the one compared with)",
    )


def spread(seed: int, batch: int) -> Tensor:
    """A tensor of one of four kinds, each batch wider than the last so that the histogram must grow."""
    x = randn(5000, seed=1000 * seed + batch)
    kinds = [x, x.relu(), x.abs().exp() - 1, x * x.abs()]
    return kinds[seed % 4] * (1 + 0.5 * batch)


def test_calibrators_equal_nvidias(nvidia: Any) -> None:
    quantize, compared = nvidia.tensor_quant.fake_tensor_quant, 0
    for seed, bits, unsigned in itertools.product(range(4), (8, 4), (False, True)):
        theirs = nvidia.calib.HistogramCalibrator(bits, None, unsigned)
        ours = HistogramCalibrator(bits, None, unsigned)
        for batch in range(3):
            theirs.collect(spread(seed, batch))
            ours.collect(spread(seed, batch))
        assert torch.equal(theirs._calib_hist.long(), ours._calib_hist)
        assert torch.equal(theirs._calib_bin_edges, ours._calib_bin_edges)
        chosen: list[dict[str, Any]] = [{"percentile": percent} for percent in (90, 99, 99.9, 99.99, 100)]
        for arguments in [{"method": "percentile"} | item for item in chosen] + [
            {"method": "entropy", "stride": 61}
        ]:
            assert theirs.compute_amax(**arguments) == ours.compute_amax(**arguments)
            compared += 1
        # Its MSE passes num_bits where the bias is meant, so the search is written here; the quantizer is NVIDIA's.
        middles = (theirs._calib_bin_edges[1:] + theirs._calib_bin_edges[:-1]) / 2
        tried = middles[128::17]
        errors = [quantize(middles, amax, None, bits, unsigned) - middles for amax in tried]
        costs = torch.stack([(error**2 * theirs._calib_hist).mean() for error in errors])
        assert ours.compute_amax("mse", stride=17) == tried[costs.argmin()]
        compared += 1
    assert compared == 16 * 7


def test_a_gap_above_zero_does_not_take_entropy_in_as_it_does_nvidias(nvidia: Any) -> None:
    """NVIDIA's divergence of a cut within the gap is NaN, which wins: an amax below every value but zero."""
    x = randn(5000)
    x[x.abs() < 0.4] = 0
    theirs, ours = nvidia.calib.HistogramCalibrator(8, None, False), HistogramCalibrator()
    theirs.collect(x)
    ours.collect(x)
    amax = ours.compute_amax("entropy", stride=61)
    assert theirs.compute_amax("entropy", stride=61) < 0.4
    assert amax is not None
    assert amax > 1


@given(seed=SEEDS, percentile=st.floats(0, 100))
def test_a_percentile_is_the_edge_below_the_bin_that_reaches_the_share(seed: int, percentile: float) -> None:
    x = randn(3000, seed=seed)
    calibrator = HistogramCalibrator(num_bins=64)
    calibrator.collect(x)
    amax, width = calibrator.compute_amax("percentile", percentile=percentile), x.abs().max() / 64
    assert amax is not None
    share = percentile / 100
    slack = width * 1e-5  # a value that float32 puts on the other side of its edge
    assert (x.abs() < amax - slack).float().mean() <= share + 1e-6
    assert (x.abs() <= amax + width + slack).float().mean() >= share - 1e-6


@given(seed=SEEDS, bits=st.integers(2, 8), unsigned=st.booleans())
def test_mse_finds_an_amax_no_worse_than_the_largest_value(seed: int, bits: int, unsigned: bool) -> None:
    x = randn(3000, seed=seed).abs()
    calibrator = HistogramCalibrator(bits, unsigned=unsigned, num_bins=256)
    calibrator.collect(x)
    amax = calibrator.compute_amax("mse", start_bin=16)
    assert amax is not None
    errors = [F.mse_loss(fake_tensor_quant(x, top, bits, unsigned), x) for top in (amax, x.max())]
    # Values count as the middles of their bins: half a bin of error more
    assert errors[0].sqrt() <= errors[1].sqrt() + x.max() / 256 / 2


def test_of_equal_divergences_the_last_counts_and_a_percentile_is_reached_from_below() -> None:
    """One value in each of four bins: the first and the last cut both lose nothing at 16 bits."""
    calibrator = HistogramCalibrator(16, num_bins=4)
    calibrator.collect(torch.tensor([0.5, 1.5, 2.5, 4.0]))
    found = divergences(calibrator._calib_hist.double(), torch.arange(1, 5), 1 << 15)
    assert found[0] == found[3] == 0
    assert found[1] > 0
    assert calibrator.compute_amax("entropy", start_bin=1) == 4
    percentiles = [calibrator.compute_amax("percentile", percentile=share) for share in (0, 25, 50, 51, 100)]
    assert percentiles == [0, 0, 1, 2, 3]


def test_every_value_is_counted_once_while_the_histogram_grows() -> None:
    calibrator, seen = HistogramCalibrator(num_bins=64), 0
    for seed in range(12):
        x = randn(1 + 7 * seed, seed=seed) * 2.0 ** (seed % 5)
        calibrator.collect(x)
        seen += x.numel()
        assert int(calibrator._calib_hist.sum()) == seen
        assert len(calibrator._calib_bin_edges) == len(calibrator._calib_hist) + 1
    assert len(calibrator._calib_hist) > 64
    for seed in range(300):  # the last edge may be rounded below the largest value
        calibrator, largest = HistogramCalibrator(num_bins=3), randn(2, seed=seed).abs().sort().values
        for value in largest:
            calibrator.collect(value.reshape(1))
        assert int(calibrator._calib_hist.sum()) == 2


def test_zeros_are_counted_whenever_they_come_or_not_at_all() -> None:
    zeros, x = torch.zeros(300), randn(700).abs()
    first, last, without = HistogramCalibrator(), HistogramCalibrator(), HistogramCalibrator(skip_zeros=True)
    for batch in (zeros, x):
        first.collect(batch)
        without.collect(batch)
    for batch in (x, zeros):
        last.collect(batch)
    assert torch.equal(first._calib_hist, last._calib_hist)
    assert int(first._calib_hist.sum()) == 1000
    assert int(without._calib_hist.sum()) == 700
    only = HistogramCalibrator()
    only.collect(zeros)
    assert only.compute_amax("entropy") == 0


def test_entropy_passes_over_cuts_below_which_nothing_lies_and_drops_an_outlier() -> None:
    calibrator = HistogramCalibrator()
    calibrator.collect(torch.tensor([0.0, 255, 255, 255, 255, 256]))
    amax = calibrator.compute_amax("entropy")
    assert amax is not None
    assert abs(amax - 255) <= 256 / 2048
    calibrator.reset()
    calibrator.collect(
        torch.cat([torch.rand(700, generator=torch.Generator().manual_seed(0)), torch.tensor([10.0])])
    )
    amax = calibrator.compute_amax("entropy")
    assert amax is not None
    assert amax < 1.1


def test_a_max_calibrator_keeps_the_largest_of_all_tensors_and_forgets_on_reset() -> None:
    calibrator, batches = MaxCalibrator(8, 0), [randn(4, 3, 2, seed=seed) for seed in range(3)]
    for batch in batches:
        calibrator.collect(batch)
    amax = calibrator.compute_amax()
    assert amax is not None
    assert torch.equal(amax, torch.stack(batches).abs().amax((0, 2, 3)).reshape(4, 1, 1))
    calibrator.reset()
    assert calibrator.compute_amax() is None
