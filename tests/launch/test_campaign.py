"""A few faults of the campaign, drawn by a fixed seed, lose nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaign import campaign, table


@pytest.mark.long
def test_twelve_faults_lose_nothing_here_and_under_torchrun(tmp_path: Path) -> None:
    verdicts = list(campaign(12, 7, ["here", "torchrun"], tmp_path))
    assert [verdict.wrong for verdict in verdicts] == [[] for _ in verdicts]
    assert sum(len(verdict.struck) for verdict in verdicts) >= 12
    assert "without a loss" in table(verdicts)
