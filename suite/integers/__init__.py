"""A quantized network as integers: its levels, what its nodes do, quantizers at every joint, integers alone."""
