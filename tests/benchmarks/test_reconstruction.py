"""A reconstruction is timed beside the authors' schedule, and what a long one would take by a short one."""

from __future__ import annotations

import pytest
import torch
from fakes.networks import two_blocks

from benchmarks.reconstruction import Clock, Spent, compared, extrapolated, summed


def test_the_time_of_the_default_is_that_of_its_iterations_and_of_what_is_done_once() -> None:
    found = extrapolated(two_blocks(), torch.randn(8, 3, 8, 8), 3, False, Clock(1))
    assert found["seconds"] > found["seconds_once"] > 0 and 0.05 < found["peak_gib"] < 50


@pytest.mark.parametrize("threads", [1, 2])
def test_both_schedules_learn_the_wanted_units_ours_to_an_error_that_is_no_larger(
    capsys: pytest.CaptureFixture[str], threads: int
) -> None:
    """Four steps of theirs, and as many of ours as it takes, from one on."""
    x = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    total = compared(two_blocks(), x, ["layer1.0"], 5000, Clock(threads))
    assert total.keys() == {"literal", "ours"}
    assert all(min(spent.counted, spent.clock) > 0 for spent in total.values())
    (line,) = capsys.readouterr().out.splitlines()
    theirs, ours = (float(part.split()[0]) for part in line.split("error ")[1:])
    assert line.startswith("layer1.0") and "literal 4 steps" in line and ours <= theirs


def test_the_last_line_has_the_threads_and_both_kinds_of_seconds() -> None:
    found = summed({"literal": Spent(60.0, 90.0), "ours": Spent(10.0, 30.0)}, 1)
    assert found == {
        "speedup_vs_literal": 6.0,
        "speedup_on_the_clock": 3.0,
        "threads": 1,
        "seconds_literal": 60.0,
        "seconds_ours": 10.0,
        "clock_seconds_literal": 90.0,
        "clock_seconds_ours": 30.0,
    }
