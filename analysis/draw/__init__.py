"""A DataFrame in, a matplotlib Figure out."""
