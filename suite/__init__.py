"""What does quantizing a network really cost? Sweeps of quantization methods, each run recorded."""
