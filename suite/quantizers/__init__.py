"""Quantizers, their place in a network, and what becomes of its BatchNorm and its channels."""
