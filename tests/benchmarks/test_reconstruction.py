"""What a long reconstruction would take is measured by a short one."""

from __future__ import annotations

import torch
from fakes.networks import two_blocks

from benchmarks.reconstruction import Clock, extrapolated


def test_the_time_of_the_default_is_that_of_its_iterations_and_of_what_is_done_once() -> None:
    found = extrapolated(two_blocks(), torch.randn(8, 3, 8, 8), 3, False, Clock(1))
    assert found["seconds"] > found["seconds_once"] > 0 and 0.05 < found["peak_gib"] < 50
