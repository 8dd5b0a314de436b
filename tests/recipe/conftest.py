"""Tests of a user's files start as a new process would."""

from __future__ import annotations

import sys

import pytest
from fakes.user_files import forget

from suite.recipe import user_files


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """What earlier tests imported is not known, and what this one imports is forgotten."""
    forget(monkeypatch)
    monkeypatch.setattr(user_files, "BESIDE", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
