"""The tables of `suite sensitivity` fit the terminal."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from suite.cli.sensitivity import costs_tables

COST = {
    "layer": "layer3.2.conv2", "tensor": "weight", "bits": 3, "noise": 0.03, "logits": 0.0803, "gradient": 2.75e-05,
    "hessian": -0.000654, "hessian_standard_error": 0.00517,
}  # fmt: skip
TRUTH = {"loss_alone": 0.0083, "top1_alone": 100.0, "loss_all_but": 2.9349, "top1_all_but": 45.31}


@pytest.mark.parametrize(
    ("truth", "width", "tables"),
    [(TRUTH, 80, 2), (TRUTH, 160, 1), (dict.fromkeys(TRUTH), 80, 1)],
)
def test_the_costs_of_layers_are_one_table_where_the_terminal_is_wide_enough_and_two_where_not(
    truth: dict[str, Any], width: int, tables: int
) -> None:
    console = Console(width=width)
    found = costs_tables({"costs": [COST | truth]}, width)
    assert len(found) == tables
    with console.capture() as shown:
        for table in found:
            console.print(table)
    lines = shown.get().splitlines()
    assert all(len(line) <= width for line in lines)
    every = " ".join(lines)
    assert all(text in every for text in ("layer3.2.conv2", "-15.2", "2.75e-05"))
    assert ("2.9349" in every and "45.31" in every) == (truth is TRUTH)
