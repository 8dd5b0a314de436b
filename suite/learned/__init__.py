"""Quantizers that learn while the network trains: LSQ and its rivals."""
