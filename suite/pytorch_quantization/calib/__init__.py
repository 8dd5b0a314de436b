"""Calibrators watch a tensor and answer the amax to quantize it with: the largest, or by a histogram."""

from suite.pytorch_quantization.calib.calibrator import Calibrator
from suite.pytorch_quantization.calib.histogram import HistogramCalibrator
from suite.pytorch_quantization.calib.max import MaxCalibrator

__all__ = ["Calibrator", "HistogramCalibrator", "MaxCalibrator"]
