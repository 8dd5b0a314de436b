"""Skips what this machine lacks; in CI it fails instead."""

from __future__ import annotations

import os

import pytest


def missing(what: str) -> None:
    """Skip, saying what this machine lacks; where CI is set, fail: there everything must be installed."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} (and CI is set, so this must not be skipped)")
    pytest.skip(what)
