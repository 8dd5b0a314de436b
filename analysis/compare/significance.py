"""Intervals of 95 %, and tests of whether two results differ.

Of scipy only its special functions are used, and imported where they are: scipy.stats takes seconds on a slow machine.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from suite.record import files

Bits: TypeAlias = NDArray[np.bool_]
Interval: TypeAlias = tuple[float, float]

LEVEL = 0.05
"""What a p must be below; an interval leaves as much out."""
Z = 1.96
"""Standard errors on either side: 95 % of a normal distribution."""
UNKNOWN = (math.nan, math.nan)


def of_mean(mean: float, sd: float, n: int) -> Interval:
    """Where the mean of `n` seeds lies, by Student's t; NaN below two.

    >>> low, high = of_mean(90.5, 0.5**0.5, 2)
    >>> round(low, 2), round(high, 2)
    (84.15, 96.85)
    """
    if n < 2 or math.isnan(sd):
        return UNKNOWN
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 1 - LEVEL / 2)) * sd / math.sqrt(n)
    return mean - half, mean + half


def of_share(percent: float, images: float) -> Interval:
    """Where the accuracy of one network lies that has `percent` right of `images` (Wilson 1927), in percent.

    A percent that is a mean over seeds is rounded to whole images.

    >>> [round(end, 2) for end in of_share(91.73, 10_000)], [round(end, 2) for end in of_share(0, 10_000)]
    ([91.17, 92.25], [0.0, 0.04])
    """
    if math.isnan(percent) or not images > 0:
        return UNKNOWN
    from scipy.special import ndtri

    n, right, z = int(images), round(percent / 100 * images), float(ndtri(1 - LEVEL / 2))
    share = right / n
    middle = (2 * n * share + z**2) / (2 * (n + z**2))
    half = z / (2 * (n + z**2)) * math.sqrt(4 * n * share * (1 - share) + z**2)
    return 100 * (middle - half) if right else 0.0, 100 * (middle + half) if right < n else 100.0


def of_drop(start: float, end: float, images: float) -> Interval:
    """Where the drop from `start` to `end`, percents of the same `images`, lies, as if they were other images: the
    paired interval, which needs the result of each image, is narrower."""
    if math.isnan(start - end) or not images > 0:
        return UNKNOWN
    # Not below 0: a mean of percents may exceed 100 by rounding.
    half = Z * math.sqrt(sum(max(0.0, percent * (100 - percent)) for percent in (start, end)) / images)
    return start - end - half, start - end + half


def wider(one: Interval, other: Interval) -> Interval:
    """The wider of two intervals; `other` where `one` is unknown."""
    return one if one[1] - one[0] > other[1] - other[0] else other


def of_accuracy(mean: float, sd: float, n: int, images: float) -> Interval:
    """That of a `mean` over `n` seeds or that of one run by its number of `images`, whichever is wider: seeds that
    happen to agree do not cover other images."""
    low, high = wider(of_mean(mean, sd, n), of_share(mean, images))
    return max(low, 0.0), min(high, 100.0)  # in this order NaN stays


def correct(runs: Path, key: str) -> Bits | None:
    """Of each test image whether the finished run classified it rightly, or None where that was not recorded."""
    try:
        outcome = json.loads(files.read_bytes(runs / key / "outcome.json"))
        packed = np.frombuffer(base64.b64decode(outcome["correct"]), dtype=np.uint8)
        return np.unpackbits(packed)[: int(outcome["images"])].astype(bool)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None  # `run_folders.load` reports what is wrong with the file


def stacked(results: Sequence[tuple[Bits | None, Bits | None]]) -> tuple[Bits, Bits] | None:
    """The results of pairs of runs as (before, after), bool [pairs, images] each; None without a pair, where a run did
    not record its images, and where not all have equally many."""
    sizes = {None if bits is None else len(bits) for pair in results for bits in pair}
    if len(sizes) != 1 or None in sizes:
        return None
    before, after = zip(*results, strict=True)
    return np.stack(before), np.stack(after)


def paired(before: Bits | None, after: Bits | None) -> dict[str, float]:
    """The change in top-1 from `before` to `after`, points, with a 95 % interval and McNemar's exact p.

    With g images gained and l lost of n, the difference is (g - l) / n, its standard error
    sqrt(g + l - (g - l)^2 / n) / n; p is that of g among g + l throws of a fair coin. Of several seeds, bool
    [seeds, images], an image's changes count together, as one throw: the seeds are tested on the same images.

    >>> change = paired(np.array([1, 1, 0, 0] * 25, dtype=bool), np.array([1, 1, 1, 0] * 25, dtype=bool))
    >>> change["difference"], round(change["high"], 1), change["p"] < 1e-6
    (25.0, 33.5, True)
    """
    if before is None or after is None or before.shape != after.shape:
        return dict.fromkeys(("difference", "low", "high", "p"), math.nan)
    before, after = np.atleast_2d(before), np.atleast_2d(after)
    seeds, n = before.shape
    change = (after.astype(np.int64) - before).sum(axis=0)
    total, squares = int(change.sum()), int((change**2).sum())
    difference = 100 * total / (seeds * n)
    error = 100 * math.sqrt(squares - total**2 / n) / (seeds * n)
    return {
        "difference": difference,
        "low": difference - Z * error,
        "high": difference + Z * error,
        "p": _flipped(np.abs(change[change != 0]), abs(total)),
    }


def doubtful(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """`one` with the larger p and the wider interval of two tests of the same change; NaN where either is unknown."""
    if math.isnan(one["p"] + other["p"]):
        return {"difference": one["difference"]} | dict.fromkeys(("low", "high", "p"), math.nan)
    low, high = wider((one["low"], one["high"]), (other["low"], other["high"]))
    return {"difference": one["difference"], "low": low, "high": high, "p": max(one["p"], other["p"])}


def _flipped(sizes: NDArray[np.int64], total: int) -> float:
    """How often the sum of `sizes`, each with a sign by a fair coin, is `total` or more on either side."""
    from scipy.special import gammaln

    spread = np.ones(1)  # of the sum, from its smallest to its largest value, which it takes in steps of 2
    for size in np.unique(sizes):
        count = int((sizes == size).sum())
        of_size = np.zeros(size * count + 1)
        heads = np.arange(count + 1)
        ways = gammaln(count + 1) - gammaln(heads + 1) - gammaln(count - heads + 1)
        of_size[::size] = np.exp(ways - count * math.log(2))
        spread = np.convolve(spread, of_size)
    largest = len(spread) - 1
    tails = spread[: (largest - total) // 2 + 1].sum() + spread[(largest + total) // 2 :].sum()
    return min(1.0, float(tails))


def welch(before: Sequence[float], after: Sequence[float]) -> dict[str, float]:
    """The change of the mean over seeds, with a 95 % interval and p by Welch's t-test; both NaN below two seeds on a
    side, and where no seed differs from another.

    >>> change = welch([90.0, 91.0, 92.0], [80.0, 81.0, 82.0])
    >>> round(change["difference"], 2), round(change["p"], 4)
    (-10.0, 0.0003)
    """
    difference = float(np.mean(after) - np.mean(before)) if len(before) and len(after) else math.nan
    unknown = {"difference": difference, "low": math.nan, "high": math.nan, "p": math.nan}
    if min(len(before), len(after)) < 2 or np.ptp(before) == np.ptp(after) == 0:
        return unknown
    from scipy.special import stdtr, stdtrit

    parts = [float(np.var(side, ddof=1)) / len(side) for side in (before, after)]
    error = math.sqrt(sum(parts))
    sizes = len(before), len(after)
    freedom = error**4 / sum(part**2 / (n - 1) for part, n in zip(parts, sizes, strict=True))
    half = float(stdtrit(freedom, 1 - LEVEL / 2)) * error
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    return unknown | {"low": difference - half, "high": difference + half, "p": p}


def holm(ps: Sequence[float]) -> list[float]:
    """Each p corrected for there being several (Holm 1979); a NaN is no test, and stays.

    >>> [round(p, 2) for p in holm([0.01, 0.04, math.nan, 0.03])]
    [0.03, 0.06, nan, 0.06]
    """
    tested = sorted((p, index) for index, p in enumerate(ps) if not math.isnan(p))
    corrected, largest = [math.nan] * len(ps), 0.0
    for rank, (p, index) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        corrected[index] = largest
    return corrected
