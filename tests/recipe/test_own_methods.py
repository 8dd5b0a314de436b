"""A method of the user's of which no key or name can be made is refused in his words."""

from __future__ import annotations

from pathlib import Path

import pytest

from suite.methods.amax import Amax
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training, user_files
from suite.recipe.errors import SuiteError

SGD = Sgd(1, 128, 0.05, pad=1, flip=False, precision=Precision("O0"))


FROZEN, DATACLASS = "@dataclass(frozen=True)\n", "@dataclass\n"
OF_METHOD = "class Mine(Method):\n    weight_bits: int = 8\n    act_bits: int = 8\n"
STEPS = "    def steps(self): return ()\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OF_METHOD + STEPS, "Mine is no frozen dataclass; write @dataclass"),
        (DATACLASS + OF_METHOD + STEPS, "Mine is no frozen dataclass"),
        ("class Mine(Amax):\n    scale: float = 2.0\n", "Mine.scale is no field of it; write @dataclass"),
        (
            FROZEN + OF_METHOD.replace("weight", "k: int\n    weight") + STEPS + "made = Mine(1)\n",
            "Mine.k has no default; give it one",
        ),
        (FROZEN + OF_METHOD, r"Mine lacks steps\(\); let it return a tuple of steps"),
        (
            FROZEN + OF_METHOD + "    def steps(self): return None\n",
            r"Mine.steps\(\) gave None; let it return",
        ),
        (FROZEN + OF_METHOD + "    def steps(self): return (Amax,)\n", r"Mine.steps\(\) gave \(<class"),
        (
            FROZEN + "class Mine(Method):\n    act_bits: int = 8\n" + STEPS,
            "Mine lacks weight_bits; give it a field",
        ),
        (
            FROZEN + OF_METHOD + "    k: object = (1, Path('x'))\n" + STEPS,
            "Mine.k holds PosixPath.'x'., a PosixPath",
        ),
        (
            FROZEN + OF_METHOD + "    k: object = field(default_factory=lambda: [1])\n" + STEPS,
            r"Mine.k holds \[1\], a list; a stage is known by its method's fields",
        ),
        (
            f"{DATACLASS}class Own(Step):\n    k: int = 1\n    def apply(self, model, feed): ...\n{FROZEN}{OF_METHOD}"
            "    def steps(self): return (Own(),)\n",
            "Mine has a step Own that is no frozen dataclass",
        ),
        (
            FROZEN + OF_METHOD + STEPS + "made = Mine\n",
            "Recipe.method must be a Method, got the class Mine; write Mine",
        ),
    ],
)
def test_a_method_that_no_key_or_name_can_be_made_of_is_refused_in_the_users_words(
    tmp_path: Path, forgetful: None, text: str, words: str
) -> None:
    head = (
        "from dataclasses import dataclass, field\nfrom pathlib import Path\nfrom suite.methods.amax import Amax\n"
        "from suite.recipe.method import Method, Step\n"
    )
    made = text if "made =" in text else text + "\nmade = None\n"
    (tmp_path / "one.py").write_text(f"{head}{made}")
    module = user_files.load(user_files.resolved(f"{tmp_path}/one.py:made")) or user_files.load(
        user_files.resolved(f"{tmp_path}/one.py:Mine")
    )
    training = Training(Network(), Dataset("digits"), SGD)
    with pytest.raises(SuiteError, match=words):
        Recipe(training, module if "made =" in text else module())


def test_a_width_without_a_default_is_refused_where_the_class_is_made() -> None:
    with pytest.raises(SuiteError, match="Mine.act_bits has no default; give it one, as `act_bits: int = 8`"):

        class Mine(Amax):
            act_bits: int


def test_a_stage_of_values_of_other_kinds_is_refused() -> None:
    with pytest.raises(SuiteError, match="Training.network must be a Network, got 'resnet20'"):
        Training("resnet20", Dataset("digits"), SGD)  # type: ignore[arg-type]
    with pytest.raises(SuiteError, match="Recipe.start must be a Training or a Pretrained, got Network"):
        Recipe(Network(), Amax())  # type: ignore[arg-type]
