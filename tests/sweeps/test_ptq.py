"""The sweep of post-training quantization: the options of methods that learn can be run, and are refused elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from suite.methods.best import Best
from suite.recipe import Recipe
from suite.recipe.errors import SuiteError
from suite.sweeps import find


def methods(*options: str) -> list[Any]:
    recipes, _ = find("ptq").stages(["--draws", "1", *options])
    return [recipe.method for recipe in recipes if isinstance(recipe, Recipe)]


def test_what_was_chosen_on_held_out_images_can_be_run() -> None:
    found = methods("--views", "4", "--zero-points", "--together", "0.5", "--carried", "rounded")
    learning = [one for one in found if hasattr(one, "views")]
    assert {one.name for one in learning} == {"best", "qdrop", "brecq", "adaround"}
    assert all((one.views, one.zero_points) == (4, True) for one in learning)
    assert {one.together for one in found if isinstance(one, Best)} == {0.5}
    assert {one.carried for one in found} == {"rounded"} and len(found) == 8 * 8


def test_by_default_all_of_it_is_off() -> None:
    found = [one for one in methods("--methods", "best", "rounding") if one.name == "best"]
    conventions = {(one.first_last, one.image_bits, one.carried) for one in found}
    as_gdfq = None, 8, "rounded"
    assert conventions == {(8, None, "float"), (None, 8, "float"), as_gdfq, (None, None, "float")}
    for one in found:
        own = {"image_bits": one.image_bits, "carried": one.carried}
        assert one == Best(one.weight_bits, one.act_bits, one.first_last, 100, **own)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--methods", "qdrop", "--together", "0.5"), "together 0.5 is of best; methods are qdrop"),
        (
            ("--methods", "dfq", "rounding", "--views", "2"),
            "views 2 is of best, qdrop, brecq, adaround; methods are",
        ),
        (("--carried", "half"), "carried"),
        (("--together", "-1"), "Best.together is a part of the iterations, from 0 on, got -1.0"),
    ],
)
def test_an_option_that_no_chosen_method_has_is_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        methods(*words)
