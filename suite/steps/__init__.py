"""The steps that methods are made of: each changes a model, and can be applied to any.

A step is a frozen dataclass with its settings; importing it imports no torch. `suite.recipe.method` says what a step
may ask for.
"""

from suite.steps.batch_norm import FoldBatchNorm, FreezeBatchNorm, ReestimateBatchNorm
from suite.steps.calibrate import RunCalibration, TakeRanges
from suite.steps.insert import Bake, Insert
from suite.steps.rounding import (
    CurrentMinMax,
    Entropy,
    LeastError,
    MinMax,
    MovingMinMax,
    MovingPercentile,
    Percentile,
    SearchedHistogram,
    Uniform,
)
from suite.steps.train_on import StartUntrained, TrainOn

__all__ = [
    "Bake",
    "CurrentMinMax",
    "Entropy",
    "FoldBatchNorm",
    "FreezeBatchNorm",
    "Insert",
    "LeastError",
    "MinMax",
    "MovingMinMax",
    "MovingPercentile",
    "Percentile",
    "ReestimateBatchNorm",
    "RunCalibration",
    "SearchedHistogram",
    "StartUntrained",
    "TakeRanges",
    "TrainOn",
    "Uniform",
]
