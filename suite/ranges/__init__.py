"""The range that a tensor is quantized in: observers, histograms of all layers, and the searches."""
