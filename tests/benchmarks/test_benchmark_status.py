"""benchmarks/status.py measures what it names, and its last line is JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import status
from suite.record.status import Statuses


def test_the_benchmark_ends_with_its_json_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["status", "--stages", "30", "--rounds", "1", "--seconds", "1"])
    status.main()
    lines = capsys.readouterr().out.splitlines()
    values = json.loads(lines[-1])
    assert list(values) == [
        "status_seconds",
        "status_core_seconds",
        "watch_core_percent",
        "launch_core_percent",
        "check_over_whole_journals",
    ]
    assert lines[0].startswith("30 finished stages") and all(value > 0 for value in values.values())


def test_its_stages_are_done_and_undamaged(tmp_path: Path) -> None:
    listed = status.stages(26)
    for stage in listed:
        status.write_finished(tmp_path, stage)
    found = Statuses(tmp_path).of_all(listed)
    assert {now.state for now in found} == {"done"} and not sum(now.damaged for now in found)
    assert [len(now.journal) for now in found if now.stage.trains_by] == [3 + 2 * status.EPOCHS] * 2
