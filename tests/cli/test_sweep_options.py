"""The parameters of a sweep are options of the command line: types, lists, help and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.commands import refused

from suite.cli.main import main

OPTIONS = """
from pathlib import Path
from typing import Annotated, Literal
from suite.recipe.errors import SuiteError

def sweep(
    bits: tuple[int, ...] = (8,),
    rates: list[float] | None = None,
    pair: Annotated[tuple[int, str], "a number and a word"] = (1, "a"),
    depth: Literal[20, 32] = 20,
    weights: Annotated[Path | None, "a checkpoint"] = None,
    fast: bool = False,
    slow: bool = True,
    epochs: int | None = 3,
    momentum: float = 0.9,
):
    raise SuiteError(f"got {dict(sorted(locals().items()))}")
"""
GOT = {
    "bits": (8,),
    "depth": 20,
    "epochs": 3,
    "fast": False,
    "momentum": 0.9,
    "pair": (1, "a"),
    "rates": None,
    "slow": True,
    "weights": None,
}


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        ("", {}),
        ("--bits 4 8", {"bits": (4, 8)}),
        ("--bits 4 --bits 8", {"bits": (4, 8)}),
        ("--rates 0.1 -2 1e-3 --fast", {"rates": [0.1, -2.0, 0.001], "fast": True}),
        ("--pair 2 b --depth 32", {"pair": (2, "b"), "depth": 32}),
        ("--weights a/b.pt --no-slow", {"weights": Path("a/b.pt"), "slow": False}),
        ("--epochs=5 --momentum -1", {"epochs": 5, "momentum": -1.0}),
    ],
)
def test_the_types_of_a_sweeps_parameters_are_those_of_its_options(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: str, changed: dict[str, object]
) -> None:
    (tmp_path / "typed.py").write_text(OPTIONS)
    said = refused(capsys, "plan", tmp_path / "typed.py", *words.split(), "--runs", tmp_path)
    assert f"got {GOT | changed}" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--bits four", 'Invalid value for --bits: unable to convert "four" into int'),
        ("--epochs 2.5", 'Invalid value for --epochs: unable to convert "2.5" into int'),
        ("--bits 4 2.5", 'Invalid value for --bits: unable to convert "2.5" into int'),
        ("--depth 44", 'Invalid value "44" for --depth'),
        ("--epochs", "--epochs requires an argument"),
        ("--pair 1", "--pair requires 2"),
        ("stray", "stray"),
        (
            "--bit 4",
            "Unknown option: --bit. Did you mean --bits? Options of the sweep: --bits, --rates, --pair",
        ),
    ],
)
def test_an_option_of_another_type_is_refused_with_its_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: str, message: str
) -> None:
    (tmp_path / "typed.py").write_text(OPTIONS)
    said = refused(capsys, "plan", tmp_path / "typed.py", *words.split(), "--runs", tmp_path)
    assert message in said and "See suite plan typed.py --help" in said


def test_the_help_of_a_sweep_shows_each_option_with_its_text_and_default(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "typed.py").write_text(OPTIONS)
    assert main(["plan", str(tmp_path / "typed.py"), "--help"]) == 0
    said = capsys.readouterr().out
    for line in (
        "--bits",
        "--no-slow",
        "a number and a word",
        "[default: 0.9]",
        "[choices: 20, 32]",
        "--only",
    ):
        assert line in said


GROUPED = """
from dataclasses import dataclass
from cyclopts import Parameter
from suite.recipe.errors import SuiteError
from suite.sweeps.float_network import ON_DIGITS, FloatNetwork

@Parameter(name="*")
@dataclass(frozen=True)
class Mine:
    {field}: int = 1

MINE = Mine()

def sweep(network: FloatNetwork = ON_DIGITS, mine: Mine = MINE):
    raise SuiteError(f"got {network.model} {network.classes} {mine}")
"""


def test_a_dataclass_of_options_gives_a_sweep_an_option_for_each_field(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "grouped.py"
    file.write_text(GROUPED.replace("{field}", "depth"))
    words = ("--model", "resnet56", "--depth", "3", "--runs", tmp_path)
    assert "got resnet56 10 Mine(depth=3)" in refused(capsys, "plan", file, *words)
    file.write_text(GROUPED.replace("{field}", "workers"))
    assert "sweep() cannot have a parameter 'workers'" in refused(capsys, "plan", file, "--runs", tmp_path)
