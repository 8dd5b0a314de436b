"""What SLURM's commands print is read."""

from __future__ import annotations

import pytest

from slurm.client import expanded


@pytest.mark.parametrize(
    ("identity", "tasks"),
    [
        ("12", ["12"]),
        ("12_3", ["12_3"]),
        ("5_[0-2,7]", ["5_0", "5_1", "5_2", "5_7"]),
        ("6_[0-6:3]", ["6_0", "6_3", "6_6"]),
        ("12_[0-1,7%4]", ["12_0", "12_1", "12_7"]),
        ("5_[0-1,...,48-50...]", ["5_0", "5_1"]),
    ],
)
def test_the_short_forms_of_arrays_are_read(identity: str, tasks: list[str]) -> None:
    assert expanded(identity) == tasks
