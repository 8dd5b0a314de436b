"""A budget of measured milliseconds: of which kernel a layer takes the time, and where the times are from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes.mixed import CALIBRATION, START, chosen, mixed, widths

from suite.methods.mixed import Mixed
from suite.methods.mse import Mse
from suite.methods.scheme import Scheme
from suite.recipe import Recipe
from suite.recipe.errors import SuiteError
from suite.recipe.serialize import to_json
from suite.steps import LayerTimes
from suite.sweeps.values import from_json

TIMES = LayerTimes(
    tuple(
        (name, bits, bits, ms)
        for name, fast, slow in (
            ("conv", 1.0, 3.0),
            ("left", 2.0, 7.0),
            ("right", 0.5, 0.7),
            ("linear", 0.1, 0.1),
        )
        for bits, ms in ((8, fast), (32, slow))
    )
)


def test_a_budget_of_measured_milliseconds_is_met_and_kept() -> None:
    """Of 8 bits all together take 3.6 ms and of float 10.8; tied layers change together."""
    wide = {"widths": (8, 16), "size_bits": 0, "bops_per_mac": 0, "times": TIMES}
    spent = {}
    for budget in (3.6, 5.6, 8.9, 10.8):
        _, kept, feed = chosen(mixed(Mse(8, 8, feed=CALIBRATION), latency_ms=budget, **wide))
        spent[budget] = kept["latency_ms"]
        assert kept["latency_ms"] == feed.values["latency_ms"] <= budget + 1e-9
        assert kept["budget"]["latency_ms"] == budget
        assert kept["latency_ms"] == pytest.approx(
            sum(TIMES.milliseconds(name, *pair) for name, pair in widths(kept).items())
        )
    assert spent[3.6] == pytest.approx(3.6) and spent[10.8] == pytest.approx(10.8)
    assert spent[5.6] == pytest.approx(5.6), "conv, which alone fits"
    with pytest.raises(
        SuiteError, match="has milliseconds of 3; the least possible is 3.6: raise the budget"
    ):
        chosen(mixed(Mse(8, 8, feed=CALIBRATION), latency_ms=3.0, **wide))
    base = Scheme(8, 8, calibration=CALIBRATION, first_last=8)
    _, kept, _ = chosen(mixed(base, "random", latency_ms=2.5, **wide))
    assert kept["latency_ms"] == pytest.approx(2.5), "of the layers whose widths are free"


def test_a_layer_takes_the_fastest_kernel_that_holds_its_widths_and_one_without_a_time_is_named() -> None:
    times = LayerTimes((("conv", 4, 8, 3.0), ("conv", 8, 8, 2.0), ("conv", 32, 32, 9.0)))
    assert [times.milliseconds("conv", *pair) for pair in ((2, 2), (5, 8), (4, 16))] == [2.0, 2.0, 9.0]
    with pytest.raises(SuiteError, match="no time was measured of layer left at 2 bits and inputs of 2"):
        chosen(mixed(Mse(4, 4, feed=CALIBRATION), latency_ms=9.0, times=times))
    for wrong in ({"latency_ms": 1.0}, {"times": times}):
        with pytest.raises(SuiteError, match="latency_ms and times belong together"):
            Mixed(**wrong)  # type: ignore[arg-type]
    with pytest.raises(SuiteError, match=r"milliseconds above 0\), got"):
        LayerTimes((("conv", 8, 8, 0.0),))


def test_times_are_read_from_a_record_and_a_name_tells_measurements_apart(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    rows = [
        dict(zip(("name", "weight_bits", "input_bits", "milliseconds"), row, strict=True))
        for row in TIMES.times
    ]
    file.write_text(json.dumps({"layers": rows}))
    assert LayerTimes.read(file) == TIMES
    recipe = Recipe(START, Mixed(latency_ms=2.0, times=TIMES))
    assert "latency ms 2.0 times of 4 layers, " in recipe.name
    assert from_json(to_json(recipe)) == recipe
    assert (
        recipe.key != replace(recipe, method=replace(recipe.method, times=LayerTimes(TIMES.times[:-1]))).key
    )
    for content in ("{", "{}", '{"layers": [{}]}', '{"layers": 3}'):
        file.write_text(content)
        with pytest.raises(SuiteError, match=r"is no record of layer times: .*suite latency KEY --layers"):
            LayerTimes.read(file)


@pytest.mark.parametrize(
    "wrong",
    [
        ("conv", "8", 8, 1.0),
        ("conv", None, 8, 1.0),
        ("conv", 8, 8.0, 1.0),
        (3, 8, 8, 1.0),
        ("conv", 8, 8, "1"),
    ]
    + [("conv", 8, 8, ms) for ms in (None, float("nan"), float("inf"), 0.0, -1.0, True)]
    + [("conv", 0, 8, 1.0), ("conv", True, 8, 1.0), ("conv", 8, 64, 1.0), ["conv", 8, 8, 1.0]],
    ids=str,
)
def test_a_time_that_is_none_is_refused_when_it_is_given_and_when_it_is_read(
    tmp_path: Path, wrong: Any
) -> None:
    """Not in the middle of a run, where it would be compared with widths."""
    with pytest.raises(SuiteError, match="a layer's time is"):
        LayerTimes((("conv", 8, 8, 1.0), wrong))
    file = tmp_path / "times.json"
    names = ("name", "weight_bits", "input_bits", "milliseconds")
    file.write_text(json.dumps({"layers": [dict(zip(names, wrong, strict=True))]}))
    if isinstance(wrong, tuple):
        with pytest.raises(SuiteError, match=r"times\.json: a layer's time is .*suite latency KEY --layers"):
            LayerTimes.read(file)
