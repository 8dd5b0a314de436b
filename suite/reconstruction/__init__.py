"""A quantized network learns, part by part, to give what the float one gives: rounding, steps, biases."""
