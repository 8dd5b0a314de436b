"""What rounding each layer costs stands in the report where it was measured, and is read with care."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from fakes.layer_records import NAMES, keep
from fakes.runs_folder import Json, finish, plan, stage

from analysis.page import sensitivity_section
from analysis.page.parts import Lines, Picture, Table
from analysis.report import results
from analysis.report.wording import MINUS


def record(truth: bool = True) -> Json:
    """The later a layer, the less it costs."""
    costs = []
    for (place, name), tensor, bits in itertools.product(enumerate(NAMES), ("weight", "input"), (2, 4)):
        rise = 2.0 ** -(place + bits)
        row = {"layer": name, "tensor": tensor, "bits": bits, "noise": rise, "logits": rise, "gradient": rise}
        row |= {"hessian": rise, "error": 1.0, "hessian_standard_error": 0.1}
        measured = {
            "loss_alone": 0.5 + rise,
            "top1_alone": 92.0 - rise,
            "loss_all_but": 3.0,
            "top1_all_but": 10.0,
        }
        costs.append(row | (measured if truth else dict.fromkeys(measured)))
    ranks = [
        {
            "score": score,
            "truth": kind,
            "tensor": tensor,
            "bits": bits,
            "layers": 14,
            "rho": 0.9,
            "low": -0.1,
            "high": 1,
        }
        for score, kind, tensor, bits in itertools.product(
            ("noise", "hessian"), ("loss_alone", "loss_all_but"), ("weight", "input"), (2, 4)
        )
    ]
    content = {"format": 1, "images": 256, "float": {"loss": 0.5, "top1": 92.0}, "costs": costs}
    return {**content, "correlations": ranks if truth else []}


def sweep(runs: Path) -> list[Json]:
    start = stage("float", 32, 0)
    stages = [start, stage("mse", 4, 0, start)]
    for one in stages:
        finish(runs, one, 92.0)
    plan(runs, *stages)
    return stages


def test_costs_and_rank_correlations_stand_in_the_report(tmp_path: Path) -> None:
    start, recipe = sweep(tmp_path)
    assert sensitivity_section.section(results.load(tmp_path, "small")) is None
    keep(tmp_path, start, "sensitivity.json", record())
    keep(tmp_path, recipe, "sensitivity.json", record(truth=False))
    found = sensitivity_section.section(results.load(tmp_path, "small"))
    assert found is not None
    picture, ranks, weights, _, noise, _ = found.parts
    assert isinstance(picture, Picture) and len(picture.figure.axes) == 4
    assert isinstance(ranks, Table) and "256 training images" in ranks.caption
    assert [cell.text for cell in ranks.rows[0]] == [
        *("weights", "2", "noise", "14"),
        *("0.90", f"{MINUS}0.10 to 1.00", "0.90", f"{MINUS}0.10 to 1.00"),
    ]
    assert isinstance(weights, Table) and "resnet20 on cifar10, mse, seed 0" in weights.caption
    assert [(cell.text, cell.small) for cell in weights.rows[0][1:]] == [
        ("0.25", f"{MINUS}0.25"),
        ("0.0625", f"{MINUS}0.06"),
    ]
    assert [row[0].text for row in weights.rows] == NAMES
    assert isinstance(noise, Table) and noise.caption.startswith("Noise to signal with the weights")
    assert all(len(row) == len(ranks.columns) for row in ranks.rows)
    assert f"| weights | 2 | noise | 14 | 0.90 | {MINUS}0.10 to 1.00 |" in re.sub(
        " +", " ", found.files["sensitivity.md"]
    )
    assert f"0.25 ({MINUS}0.25)" in found.files["sensitivity.md"]
    assert len(found.files["sensitivity.csv"].splitlines()) == 1 + 2 * len(record()["costs"])


@pytest.mark.parametrize(
    "content",
    [
        "{",
        {"format": 2},
        {"costs": []},
        {"costs": [{"tensor": "bias", "bits": 4}]},
        {"costs": "x"},
        {"costs": [3]},
    ],
)
def test_a_torn_record_is_left_out_and_said(tmp_path: Path, content: Any) -> None:
    start, recipe = sweep(tmp_path)
    keep(tmp_path, start, "sensitivity.json", record())
    wrong = content if isinstance(content, str) else record() | content
    keep(tmp_path, recipe, "sensitivity.json", wrong)
    found = sensitivity_section.section(results.load(tmp_path, "small"))
    assert (
        found is not None and isinstance(found.parts[0], Lines) and recipe["key"] in found.parts[0].lines[0]
    )
