"""benchmarks/scale.py measures what it names, and its last line is JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import scale
from benchmarks.status import stages, write_finished
from suite.sweeps.stored import save_sweep


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_is_that_of_the_growth(power: float) -> None:
    counts = [100, 1000, 10_000]
    assert scale.slope(counts, [3e-3 * count**power for count in counts]) == pytest.approx(power)


def test_a_launcher_in_which_nothing_happens_takes_less_than_all_of_a_core(tmp_path: Path) -> None:
    listed = stages(26)
    save_sweep(tmp_path, "big", {}, listed)
    for stage in listed[:-1]:
        write_finished(tmp_path, stage)
    (tmp_path / listed[-1].key).mkdir()
    assert 0 < scale.idle_percent(tmp_path, 26, 0.5) < 100


@pytest.mark.long
def test_the_benchmark_ends_with_its_json_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["scale", "--stages", "25", "50", "--seconds", "1"])
    scale.main()
    values = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(values) == ["plan_seconds", "status_seconds", "idle_cpu_percent", "exponent"]
    assert values["plan_seconds"] > 0 and values["status_seconds"] > 0
