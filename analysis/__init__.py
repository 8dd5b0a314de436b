"""Reads run directories and compares their results with published ones; writes no run, trains nothing."""
