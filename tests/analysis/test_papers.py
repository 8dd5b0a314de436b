"""Papers' numbers stand beside ours only where network, widths, convention and training are the same."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from fakes.trainings import QUICK

from analysis.compare import papers
from analysis.page import papers_section
from analysis.read import published
from suite.methods.apot import Apot
from suite.methods.binary_relax import BinaryRelax
from suite.methods.lsq import Lsq
from suite.methods.parq import Parq
from suite.recipe import Method, Recipe

PTQ = published.load(published.PATH.with_name("published_ptq.toml"))


LOWBIT = published.load(published.PATH.with_name("published_lowbit.toml"))


AS_GDFQ = "as the rest but image 8 bits"


def ours(method: str, bits: int, drop: float, edges: str = AS_GDFQ, **params: Any) -> dict[str, Any]:
    """A row of a summary; without training, identity shortcuts carry rounded values, as in the papers."""
    widths = {"weight_bits": bits, "act_bits": params.pop("act_bits", bits)}
    carried = {} if "feed_epochs" in params else {"carried": "rounded"}
    params_of_all = {"method": method, "edges": edges, **widths, **carried, **params}
    row = {"configuration": json.dumps(params_of_all), "method": method, "label": method, "n": 3, **widths}
    row |= {"model": "resnet20", "dataset": "cifar10", "top1": 91.73 - drop, "drop": drop}
    return row | {"drop_low": drop - 0.2, "drop_high": drop + 0.2}


def beside(*rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = papers.beside(pd.DataFrame(rows)).to_dict("records")
    return {f"{row['source']} {row['paper']}": row for row in found}


def test_each_number_stands_in_its_quote_and_says_where_it_was_read() -> None:
    ids = [number.id for number in PTQ.numbers]
    assert len(ids) == len(set(ids)) and not set(ids) & {number.id for number in LOWBIT.numbers}
    for number in PTQ.numbers:
        as_stated = f"{number.value:.2f}", str(number.value), repr(round(number.value / 100, 6))
        assert any(one in number.quote for one in as_stated), number.id
        assert number.note and number.match["method"]
        if number.match["method"] != "float":
            unread = number.match["method"] in ("zaq", "plf")
            assert papers.convention(number) is not None
            assert papers.carried(number) in ((papers.NOT_STATED,) if unread else ("float", "rounded"))


def test_the_records_lose_what_is_said_of_them() -> None:
    loss = {number.id: PTQ.drop(number) for number in PTQ.numbers}
    assert loss["synq-resnet20-cifar10-w4a4"] == pytest.approx(1.13)
    assert loss["synq-resnet20-cifar10-w3a3"] == pytest.approx(5.78)
    assert loss["qdrop-resnet50-w4a4"] == pytest.approx(1.88) and loss["brecq-resnet18-w2a4"] is None


def test_the_verdict_is_by_the_interval_of_our_loss_and_of_theirs() -> None:
    """Ours is 0.2 to either side; SynQ's, of five runs that spread by 0.1, by Student's t 2.776 * 0.1 / sqrt(5)."""
    for drop, verdict in ((0.5, papers.LESS), (1.13, papers.ALIKE), (1.5, papers.MORE)):
        found = beside(ours("best", 4, drop))
        assert found["SynQ SynQ W4A4"]["verdict"] == verdict
        assert found["SynQ SynQ W3A3"]["verdict"] == papers.NOT_RUN
    assert found["SynQ SynQ W4A4"]["half"] == pytest.approx(0.124, abs=1e-3)
    by_half = {drop: beside(ours("best", 4, drop))["SynQ SynQ W4A4"]["verdict"] for drop in (0.92, 0.88)}
    assert by_half == {0.92: papers.ALIKE, 0.88: papers.LESS}, (
        "0.92 + 0.2 is below 1.13, without their interval"
    )


def test_another_convention_stands_beside_and_is_not_judged() -> None:
    eight = ours("best", 4, 0.1, edges="8 bits")
    floats = ours("best", 4, 0.1, carried="float")
    image_too = ours("best", 4, 0.1, edges="as the rest")
    for one in (eight, image_too, floats):
        row = beside(one)["SynQ SynQ W4A4"]
        assert (row["drop"], row["verdict"]) == (0.1, papers.OTHER)
    assert (row["carried"], row["own_carried"]) == ("rounded", "float")
    found = beside(eight, floats, ours("best", 4, 0.9))
    assert (found["SynQ SynQ W4A4"]["drop"], found["SynQ SynQ W4A4"]["verdict"]) == (0.9, papers.ALIKE)
    trained, other = ours("best", 4, 0.1, feed_epochs=3), ours("amax", 4, 0.1)
    assert beside(trained) == beside(other) == {}


def test_a_paper_of_a_method_of_ours_is_beside_that_method() -> None:
    """LLT's re-run of LSQ, first and last layer float, trained on labels; its own method is none of ours."""
    found = beside(ours("lsq", 4, 0.2, edges="float", feed_epochs=200), ours("best", 4, 0.5))
    assert found["LLT LSQ 4/4"]["drop"] == 0.2 and found["LLT LLT 4/4"]["verdict"] == papers.NOT_RUN
    assert found["APoT 4-bit"]["edges"] == "weights 8 bits, inputs float"


def test_the_plain_configuration_of_a_method_stands_beside_a_paper_wherever_it_comes() -> None:
    plain = ours("lsq", 4, 0.6, edges="float", feed_epochs=200, distillation="None", per="tensor")
    taught = ours("lsq", 4, 0.2, edges="float", feed_epochs=200, distillation="Distillation", per="tensor")
    damped = ours("lsq", 4, 0.3, edges="float", feed_epochs=200, damping="Damping", per="tensor")
    continued = ours("lsq", 4, 0.4, edges="float", feed_epochs=200, continues="ab12", per="tensor")
    for rows in ((taught, damped, continued, plain), (plain, continued, taught)):
        assert beside(*rows)["LLT LSQ 4/4"]["drop"] == 0.6
    assert beside(taught, damped) == {} and beside(taught, continued)["LLT LSQ 4/4"]["drop"] == 0.4
    winner = ours("best", 4, 0.1, views=4, together=0.5)
    assert beside(winner, ours("best", 4, 0.5))["SynQ SynQ W4A4"]["drop"] == 0.5


@pytest.mark.parametrize(
    ("method", "paper"),
    [
        (Lsq(4, 4, first_last=32), "LLT LSQ 4/4"),
        (Lsq(2, 2, first_last=32), "LLT LSQ 2/2"),
        (Apot(4, 4), "APoT 4-bit"),
        (Apot(2, 2), "APoT 2-bit"),
        (Parq(2, 32, first_last=2), "PARQ PARQ 2 bits"),
        (BinaryRelax(4, 32, first_last=4), "PARQ BinaryRelax 4 bits"),
    ],
)
def test_a_training_in_a_papers_convention_is_judged_by_it(method: Method, paper: str) -> None:
    """By the parameters that its run records."""
    params = Recipe(QUICK, method).params
    row = ours(method.name, int(params["weight_bits"]), 0.1) | {"configuration": json.dumps(params)}
    found = beside(row)[paper]
    assert found["verdict"] in papers.JUDGED and found["label"] == method.name


def test_every_layer_at_its_width_is_one_convention_however_it_is_said() -> None:
    assert papers.treatment("2 bits", 2, 32) == papers.treatment("2 bits", 2, 2) == "as the rest"
    assert papers.treatment("weights 2 bits, inputs 4 bits", 2, 4) == "as the rest"
    assert papers.treatment("2 bits", 2, 4) == "2 bits"
    assert papers.treatment("weights 8 bits, inputs 8 bits", 4, 4) == "8 bits"
    assert papers.treatment("weights 8 bits, inputs float", 2, 32) == "8 bits", "all inputs are float"


def test_an_image_is_as_it_is_stored_with_8_bits_or_as_floats() -> None:
    stored = "as the rest but image 8 bits or float"
    assert papers.treatment("as the rest but image 8 bits", 4, 4) == stored
    assert papers.treatment("4 bits but image float", 4, 4) == stored
    assert papers.treatment("as the rest but image 6 bits", 4, 4) == "as the rest but image 6 bits"
    assert papers.treatment("8 bits but image float", 4, 4) == papers.treatment("8 bits", 4, 4)
    assert papers.treatment("as the rest but image 8 bits", 4, 32) == "as the rest", "all inputs are float"
    for same in ("as the rest but image 8 bits", "8 bits but image float"):
        assert papers.treatment(same, 8, 8) == "as the rest", same
    assert papers.treatment("as the rest but image 4 bits", 4, 4) == "as the rest"
    assert papers.treatment("6 bits but image 6 bits", 4, 4) == "6 bits"
    floats = "weights 8 bits, inputs float"
    assert papers.treatment(f"{floats} but image float", 4, 4) == floats


def table(*rows: dict[str, Any]) -> list[str]:
    """The lines of `papers.md`."""
    results = SimpleNamespace(summary=pd.DataFrame(rows))
    section = papers_section.section(results)  # type: ignore[arg-type]
    assert section is not None
    return str(section.files["papers.md"]).splitlines()


def test_the_table_has_a_line_for_each_that_stands_beside_the_smallest_loss_first_and_the_judged_first() -> (
    None
):
    lines = table(ours("best", 4, 0.5), ours("best", 3, 3.0), ours("lsq", 4, 0.2, "8 bits", feed_epochs=9))
    assert lines[0] == papers.DEFINITION
    assert lines[4].startswith(
        "| SynQ W4A4 (SynQ, Table 1: mean of 5 seeds; every layer; synthetic images) | W4A4 | "
        "as the rest but image 8 bits or float (identity shortcuts rounded) | 92.76 (float 93.89) | 1.13 (±0.12) |"
    )
    assert lines[4].endswith("| best (n 3) | 0.50 (0.30 to 0.70) | we lose less |")
    assert lines[-1].startswith("| LSQ 4/4 (re-run by ") and "; best epoch on the test images) |" in lines[-1]
    assert lines[-1].endswith(" (n 3; 8 bits, shortcuts float) | 0.20 (0.00 to 0.40) | another convention |")
