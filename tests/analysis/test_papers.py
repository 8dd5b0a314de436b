"""Papers' numbers stand beside ours only where network, widths, convention and training are the same."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from analysis.compare import papers
from analysis.page import papers_section
from analysis.read import published

PTQ = published.load(published.PATH.with_name("published_ptq.toml"))


def ours(method: str, bits: int, drop: float, edges: str = "as the rest", **params: Any) -> dict[str, Any]:
    widths = {"weight_bits": bits, "act_bits": bits}
    params_of_all = {"method": method, "edges": edges, **widths, **params}
    row = {"configuration": json.dumps(params_of_all), "method": method, "label": method, "n": 3, **widths}
    row |= {"model": "resnet20", "dataset": "cifar10", "top1": 91.73 - drop, "drop": drop}
    return row | {"drop_low": drop - 0.2, "drop_high": drop + 0.2}


def beside(*rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = papers.beside(pd.DataFrame(rows)).to_dict("records")
    return {f"{row['source']} {row['paper']}": row for row in found}


def test_each_number_stands_in_its_quote_and_says_where_it_was_read() -> None:
    ids = [number.id for number in PTQ.numbers]
    others = published.load(published.PATH.with_name("published_lowbit.toml")).numbers
    assert len(ids) == len(set(ids)) and not set(ids) & {number.id for number in others}
    for number in PTQ.numbers:
        as_stated = f"{number.value:.2f}", str(number.value), repr(round(number.value / 100, 6))
        assert any(one in number.quote for one in as_stated), number.id
        assert number.note and number.match["method"]
        assert number.match["method"] == "float" or papers.convention(number) is not None


def test_the_records_lose_what_is_said_of_them() -> None:
    loss = {number.id: PTQ.drop(number) for number in PTQ.numbers}
    assert loss["synq-resnet20-cifar10-w4a4"] == pytest.approx(1.13)
    assert loss["synq-resnet20-cifar10-w3a3"] == pytest.approx(5.78)
    assert loss["qdrop-resnet50-w4a4"] == pytest.approx(1.88) and loss["brecq-resnet18-w2a4"] is None


def test_the_verdict_is_by_the_interval_of_our_loss() -> None:
    for drop, verdict in ((0.5, papers.LESS), (1.13, papers.ALIKE), (1.5, papers.MORE)):
        found = beside(ours("best", 4, drop))
        assert found["SynQ SynQ W4A4"]["verdict"] == verdict
        assert found["SynQ SynQ W3A3"]["verdict"] == papers.NOT_RUN


def test_another_convention_or_a_training_is_not_compared() -> None:
    eight = ours("best", 4, 0.1, edges="8 bits")
    trained = ours("best", 4, 0.1, feed_epochs=3)
    other = ours("amax", 4, 0.1)
    assert beside(eight) == beside(trained) == beside(other) == {}
    found = beside(eight, ours("best", 4, 0.9))
    assert found["SynQ SynQ W4A4"]["drop"] == 0.9


def test_a_paper_of_a_method_of_ours_is_beside_that_method() -> None:
    """LLT's re-run of LSQ, first and last layer float, trained on labels; its own method is none of ours."""
    found = beside(ours("lsq", 4, 0.2, edges="float", feed_epochs=200), ours("best", 4, 0.5))
    assert found["LLT LSQ 4/4"]["drop"] == 0.2 and found["LLT LLT 4/4"]["verdict"] == papers.NOT_RUN
    assert found["APoT 4-bit"]["edges"] == "not stated"


def test_the_table_has_a_line_for_each_that_is_judged_the_smallest_loss_first() -> None:
    table = papers.beside(pd.DataFrame([ours("best", 4, 0.5), ours("best", 3, 3.0)]))
    judged = table[table["verdict"] != papers.NOT_RUN].sort_values(
        ["weight_bits", "loss"], ascending=[False, True]
    )
    lines = papers_section.markdown(judged.to_dict("records")).splitlines()
    assert lines[0] == papers.DEFINITION and len(lines) == 4 + len(judged)
    assert lines[4].startswith(
        "| SynQ W4A4 (SynQ, Table 1: mean of 5 seeds; every layer; synthetic images) |"
    )
    assert lines[4].endswith("| best (n 3) | 0.50 (0.30 to 0.70) | we lose less |")
