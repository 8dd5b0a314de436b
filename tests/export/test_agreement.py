"""What is counted between the simulation and a file, and what may differ."""

from __future__ import annotations

import pytest
import torch

from suite.export import agreement


def test_a_flip_counts_where_the_classes_lie_further_apart_than_noise() -> None:
    reference = torch.tensor([[1.0, 1.1, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    found = torch.tensor([[1.1, 1.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 2.0]])
    for noise, flips in ((0.0, 2), (0.2, 1), (2.0, 0)):
        record = agreement.difference(reference, found, noise)
        assert (record["flips"], record["flips_beyond_noise"]) == (2, flips)
    assert record["mean_difference"] == pytest.approx(6.2 / 9) and record["largest_difference"] == 3.0


def test_one_flip_in_2000_and_a_mean_of_a_fiftieth_may_differ() -> None:
    for images, flips, mean, allowed in (
        (2000, 1, 0.02, True),
        (2000, 2, 0.0, False),
        (599, 1, 0.0, True),
        (10_000, 5, 0.01, True),
        (10_000, 6, 0.01, False),
        (2000, 0, 0.021, False),
    ):
        record = {"images": images, "flips_beyond_noise": flips, "mean_difference": mean}
        assert agreement.within_bounds(record) == allowed
