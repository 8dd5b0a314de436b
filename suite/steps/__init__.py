"""The steps that methods are made of: each changes a model, and can be applied to any.

A step is a frozen dataclass with its settings; importing it imports no torch. `suite.recipe.method` says what a step
may ask for.
"""

from suite.steps.assign_widths import AssignWidths
from suite.steps.batch_norm import FoldBatchNorm, FreezeBatchNorm, ReestimateBatchNorm
from suite.steps.calibrate import RunCalibration, TakeRanges
from suite.steps.correct_bias import CorrectBias
from suite.steps.equalize import Equalize
from suite.steps.insert import Bake, Insert
from suite.steps.layer_times import LayerTimes
from suite.steps.learned import (
    Apot,
    BinaryRelax,
    Deviations,
    Dorefa,
    Ewgs,
    Lsq,
    LsqPlus,
    MeanMagnitude,
    Pact,
    Parq,
    StartLearning,
)
from suite.steps.measure_sensitivity import MeasureSensitivity
from suite.steps.reconstruct import Reconstruct
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
from suite.steps.train_on import Distillation, StartUntrained, TrainOn

__all__ = [
    "Apot",
    "AssignWidths",
    "Bake",
    "BinaryRelax",
    "CorrectBias",
    "CurrentMinMax",
    "Deviations",
    "Distillation",
    "Dorefa",
    "Entropy",
    "Equalize",
    "Ewgs",
    "FoldBatchNorm",
    "FreezeBatchNorm",
    "Insert",
    "LayerTimes",
    "LeastError",
    "Lsq",
    "LsqPlus",
    "MeanMagnitude",
    "MeasureSensitivity",
    "MinMax",
    "MovingMinMax",
    "MovingPercentile",
    "Pact",
    "Parq",
    "Percentile",
    "Reconstruct",
    "ReestimateBatchNorm",
    "RunCalibration",
    "SearchedHistogram",
    "StartLearning",
    "StartUntrained",
    "TakeRanges",
    "TrainOn",
    "Uniform",
]
