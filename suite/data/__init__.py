"""Data sets: images in memory or from files, as batches and as each rank's share of them."""
