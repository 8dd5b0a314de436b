"""A quantized network leaves the suite as a file that runs elsewhere, and is compared with the simulation."""
