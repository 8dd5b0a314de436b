"""Gives stages their ranks."""
