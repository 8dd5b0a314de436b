"""What is counted between the simulation and a file, and what may differ."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from suite.data import datasets
from suite.export import agreement
from suite.recipe import Dataset


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


@pytest.mark.parametrize("most", [1, 7, 300, 599, 5000, None])
def test_the_images_that_are_compared_are_evenly_spread(most: int | None) -> None:
    test = datasets.load(Dataset("digits", size=8), "test", Path(), torch.device("cpu"))
    x = torch.cat(list(agreement.batches(test, most)))
    whole = torch.cat(list(agreement.batches(test, None)))
    assert torch.equal(x, whole[agreement.every(test, most)]) and len(x) == min(most or 599, 599)
    assert len(test.labels[agreement.every(test, most)]) == len(x)


def test_vnni_is_asked_of_the_machines_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    for machine, flags, has in (
        ("x86_64", ("avx2",), False),
        ("x86_64", (), False),
        ("AMD64", ("avx2", "avx_vnni"), True),
        ("aarch64", ("asimddp",), True),
    ):
        monkeypatch.setattr(agreement.platform, "machine", lambda machine=machine: machine)
        monkeypatch.setattr(agreement, "cpu_flags", lambda flags=flags: flags)
        assert agreement.has_vnni() == has
