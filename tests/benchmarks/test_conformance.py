"""The benchmark of toolkits explains every difference by a rule that it computes, and shows each in a few lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.tensors import randn

from benchmarks.conformance import __main__ as command
from benchmarks.conformance import explain, page, tensors, toolkits
from benchmarks.conformance.compare import Compared, compared
from benchmarks.conformance.explain import Position
from benchmarks.conformance.settings import SETTINGS, Range, Setting

INT8, UINT8 = SETTINGS["int8 per tensor"], SETTINGS["uint8 with zero point"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = ("random", "zeros", "ties, step 0.1", "one-sided, far from 0")
    monkeypatch.setattr(tensors, "made", lambda: {name: MADE[name][:, :40] for name in chosen})


MADE = tensors.made()


@pytest.mark.usefixtures("small")
def test_torch_ao_is_explained_and_the_page_shows_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--toolkits", "torch.ao", "--made-only", "--out", str(tmp_path)]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["unexplained"] == line["without_reproducer"] == 0
    assert line["pairs_compared"] == sum(line["by_class"].values()) == 4 * 4 * 9
    text = (tmp_path / "README.md").read_text()
    assert "| range rule | amax over half the steps |" in text and "-128 to 127, ours -127 to 127" in text
    for block in text.split("```python\n")[1:]:
        assert block.startswith("import torch\n") and "\n\nx = " in block and "```text\nours " in block


@pytest.mark.usefixtures("small")
def test_what_is_not_here_is_named_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(self: object) -> str:
        raise ImportError("No module named 'brevitas'\nand more")

    monkeypatch.setattr(toolkits.Brevitas, "version", absent)
    assert command.main(["--toolkits", "brevitas", "--made-only"]) == 1
    said = capsys.readouterr()
    assert "brevitas: skipped, ImportError: No module named 'brevitas'\n" in said.out
    assert "no toolkit to compare with is installed" in said.err


class Changed(toolkits.Ours):
    """Ours under another name, with a fault of the test's."""

    name = "changed"

    def __init__(self, fault: Any) -> None:
        self.fault = fault

    def fake(self, x: torch.Tensor, range_: Range, setting: Setting) -> torch.Tensor:
        return self.fault(super().fake(x, range_, setting), x, range_)  # type: ignore[no-any-return]


FAULTS: list[tuple[str, Any, str, str]] = [
    ("codes one off", lambda y, x, r: y - y.sign() * r.scale, "codes", "unexplained"),
    ("off the grid", lambda y, x, r: y + 0.3 * r.scale, "codes", "defect"),
    ("not a number", lambda y, x, r: y * float("nan"), "codes", "defect"),
    ("ten times the gradient", lambda y, x, r: y.detach() + 10 * (x - x.detach()), "gradient", "unexplained"),
    ("a gradient everywhere", lambda y, x, r: y.detach() + (x - x.detach()), "gradient", "masks"),
    ("nothing", lambda y, x, r: y, "codes", "equal"),
]


@pytest.mark.parametrize(("what", "fault", "of", "kind"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_fault_is_found_and_only_what_a_rule_gives_is_explained(
    what: str, fault: Any, of: str, kind: str
) -> None:
    x = randn(2, 50)
    found = [
        pair for pair in compared(Changed(fault), "x", x, UINT8) if pair.of == of and pair.part == "half"
    ]
    assert [pair.verdict.kind for pair in found] == [kind]


def test_codes_are_explained_by_ties_only_at_ties() -> None:
    grid = Range(torch.tensor(0.5), torch.tensor(0.0), -127, 127)
    at = Position(torch.tensor([[0.25, 0.3]]), grid, per_channel=False)
    ours = torch.tensor([[0.0, 0.5]])
    assert explain.codes(at, ours, torch.tensor([[0.5, 0.5]]))[0] == explain.Verdict(
        "tie rounding", "half away from zero"
    )
    assert explain.codes(at, ours, torch.tensor([[0.0, 0.0]]))[0].kind == "unexplained"


def test_a_scale_is_explained_only_by_a_formula_that_gives_it() -> None:
    x = randn(2, 50)
    ours = toolkits.Ours().range(x, INT8)
    for factor, kind in (
        (127 / 127.5, "range rule"),
        (1 + 2**-23, "last bit"),
        (0.97, "unexplained"),
        (0.0, "defect"),
    ):
        theirs = Range(ours.scale * factor, ours.zero_point, -128, 127)
        assert explain.scale(x, INT8, ours, theirs).kind == kind
    assert explain.grid((-127, 127), (-128, 127)).kind == "narrow grid"
    assert explain.grid((-127, 127), (-100, 127)).kind == "unexplained"


def test_a_toolkit_that_fails_is_a_defect_with_its_own_words() -> None:
    class Fails(toolkits.Ours):
        name = "fails"

        def range(self, x: torch.Tensor, setting: Setting) -> Range:
            raise ValueError("no range\nfor this")

    (pair,) = compared(Fails(), "x", randn(2, 3), INT8)
    assert isinstance(pair, Compared)
    assert pair.verdict == explain.defect("ValueError: no range")


def test_the_tensors_of_resnet20_are_weights_and_inputs_of_all_layers() -> None:
    found, _ = tensors.resnet20()
    assert len(found) == 2 * 20
    assert all(x.dim() == 2 and x.dtype == torch.float32 for x in found.values())
    assert [len(tensors.settings_of(name)) for name in ("conv1 weight", "conv1 input", "random")] == [3, 1, 4]
    assert page.QUANTITIES[0] == "grid"
