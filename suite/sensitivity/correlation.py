"""How well a score ranks layers: Spearman's rank correlation with what was measured, and an interval of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from suite.sensitivity.costs import Cost

SCORES = ("noise", "logits", "gradient", "hessian")
TRUTHS = {"loss_alone": 1, "loss_all_but": -1}
"""Each with its sign: the costlier a layer, the higher the loss with it alone rounded, and the lower with it alone
left float."""
LEAST = 4
"""Of layers, below which there is no correlation."""
RESAMPLES, SEED = 2000, 0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """Of a `score` with a `truth` over `layers` layers, at one width and of one tensor: `rho`, and the ends of its
    95 % interval by resampling the layers."""

    score: str
    truth: str
    tensor: str
    bits: int
    layers: int
    rho: float
    low: float
    high: float


def correlations(costs: Sequence[Cost]) -> list[Correlation]:
    """Of every score with every truth, where LEAST layers have both and neither is the same for all."""
    found = []
    for tensor, bits in dict.fromkeys((cost.tensor, cost.bits) for cost in costs):
        mine = [cost for cost in costs if (cost.tensor, cost.bits) == (tensor, bits)]
        for score in SCORES:
            for truth, sign in TRUTHS.items():
                pairs = [(getattr(cost, score), getattr(cost, truth)) for cost in mine]
                values = np.array([pair for pair in pairs if None not in pair], dtype=np.float64)
                if len(values) < LEAST or np.ptp(values, axis=0).min() == 0:
                    continue
                rho, low, high = spearman(values[:, 0], sign * values[:, 1])
                found.append(Correlation(score, truth, tensor, bits, len(values), rho, low, high))
    return found


def spearman(one: Floats, other: Floats) -> tuple[float, float, float]:
    """(rho, low, high) of two samples of equal length: the 95 % interval of RESAMPLES bootstrap samples.

    >>> one = np.arange(8.0)
    >>> spearman(one, one**3)[0], spearman(one, -one)[0]
    (1.0, -1.0)
    """
    count = len(one)
    drawn = np.random.default_rng(SEED).integers(0, count, (RESAMPLES, count))
    rows = np.concatenate([np.arange(count)[None], drawn])
    ranks = [rankdata(values[rows], axis=1) - (count + 1) / 2 for values in (one, other)]
    squares = [(part**2).sum(1) for part in ranks]
    with np.errstate(invalid="ignore"):  # a sample of one layer alone has no correlation
        rho = (ranks[0] * ranks[1]).sum(1) / np.sqrt(squares[0] * squares[1])
    low, high = np.nanpercentile(rho[1:], [2.5, 97.5])
    return round(float(rho[0]), 4), round(float(low), 4), round(float(high), 4)
