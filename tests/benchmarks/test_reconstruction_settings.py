"""Settings of learned rounding are chosen on images that the calibration does not draw."""

from __future__ import annotations

from dataclasses import replace

import torch

from benchmarks.reconstruction_settings import Setting, held_out, is_done, scores, table
from suite.data.images import Images
from suite.recipe import Calibration, Dataset


def test_held_out_images_are_none_of_those_that_are_calibrated_on() -> None:
    pixels = torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1).expand(60, 3, 2, 2).contiguous()
    images = Images(pixels, torch.zeros(60, dtype=torch.int64), Dataset("digits", (0.0,) * 3, (1.0,) * 3, 2))
    calibration = Calibration(20, 20)
    (drawn,) = images.calibration_batches(calibration)
    held = held_out(images, calibration, 30)
    values = [set(x[:, 0, 0, 0].mul(255).round().tolist()) for x in (drawn, held)]
    assert [len(value) for value in values] == [20, 30] and not values[0] & values[1]


def test_the_divergence_is_zero_of_the_float_network_itself() -> None:
    network, x = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 10)), torch.randn(8, 3, 2, 2)
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 10))
    assert scores(network, network, x) == {"divergence": 0.0, "same_class": 100.0}
    assert scores(other, network, x)["divergence"] > 0


def test_the_table_has_the_least_divergence_of_each_width_first() -> None:
    same = {
        "first_last": None,
        "lr": 0.03,
        "bias_lr": 0.01,
        "iterations": 1000,
        "drop": 0.5,
        "bfloat16": False,
    }
    same |= {"corrected": True, "same_class": 99.0, "cpu_seconds": 1.0}
    records = [
        {"widths": [bits, bits], "divergence": value, **same}
        for bits, value in ((2, 0.4), (4, 0.2), (4, 0.1))
    ]
    records[1] |= {"together": 0.5}
    lines = table(records).splitlines()
    assert "the test images chose nothing" in lines[0]
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| W4A4", "| W4A4", "| W2A2"]
    assert " | 0.1 | " in lines[4] and "as the rest" in lines[4]
    assert " | 0 | 0.5 | 0 | yes | 0.2 |" in lines[5] and "as the first layer" in lines[5]


def test_a_setting_that_came_later_leaves_the_lines_of_before_as_they_were() -> None:
    plain = Setting((2, 2), 8, 0.1, 0.01, 1000, 0.5, False)
    assert plain.record().keys() == {
        "widths",
        "first_last",
        "lr",
        "bias_lr",
        "iterations",
        "drop",
        "bfloat16",
    }
    assert replace(plain, together=0.5).record() == {**plain.record(), "together": 0.5}
    before, together = [plain.record()], [replace(plain, together=0.5).record()]
    assert is_done(plain, before) and not is_done(plain, together)
    assert is_done(replace(plain, together=0.5), together) and not is_done(
        replace(plain, together=0.5), before
    )
