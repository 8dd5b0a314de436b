"""The arithmetic of quantization: grids, observers, histograms, quantizers, layers."""
