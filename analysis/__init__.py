"""Reads what runs left and says how it compares with what was published; writes no run, trains nothing."""
