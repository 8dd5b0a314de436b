"""The arithmetic of integers that stand for real numbers: grids, fake quantization, and layers in integers alone."""
