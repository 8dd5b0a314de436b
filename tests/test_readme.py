"""The README's commands, links, example and table are true."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

import pytest

from analysis import __main__ as analysis
from analysis.report import latex, results, tables
from suite import sweeps
from suite.cli.analyses import ANALYSES
from suite.cli.main import COMMANDS
from suite.cli.options import parser
from suite.methods import find

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_every_link_leads_to_a_file() -> None:
    links = {
        file.parent / link
        for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
        for link in re.findall(r"\]\(([^)#]+)\)", file.read_text())
        if not link.startswith("http")
    }
    assert len(links) > 10
    assert [link for link in links if not link.exists()] == []


def test_every_method_is_listed() -> None:
    assert all(f"[{name}](suite/methods/{name}.py)" in TEXT for name in find())


def test_the_first_two_commands_are_the_main_job_and_the_tests() -> None:
    commands = re.findall(r"^(?:make|python) .*", TEXT, re.MULTILINE)
    assert [command.split("#")[0].split() for command in commands[:2]] == [
        ["make", "sweep"],
        ["make", "test"],
    ]
    makefile = (ROOT / "Makefile").read_text()
    assert "\nsweep:" in makefile and "\ntest:" in makefile


def commands(names: Iterable[str]) -> list[str]:
    """What follows `suite` in the README, of the commands of these names."""
    found = re.findall(r"(?:^|`)suite ([^`\n#]*)", TEXT, re.MULTILINE)
    assert all(command.split()[0] in COMMANDS | ANALYSES for command in found)
    chosen = [command for command in found if command.split()[0] in names]
    assert len(chosen) >= 4
    return chosen


def test_every_command_is_understood(tmp_path: Path) -> None:
    for command in commands(COMMANDS):
        words = shlex.split(command)
        try:
            arguments, rest = parser("", COMMANDS).parse_known_args(words)
        except SystemExit:
            pytest.fail(f"not understood: {command}")
        if rest:
            known = (
                sweeps.find(arguments.sweep).parser()
                if not arguments.sweep.endswith(".py")
                else own(tmp_path)
            )
            known.parse_args(rest)


def own(folder: Path) -> argparse.ArgumentParser:
    """The parser of the README's own sweep, loaded as a user would."""
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert code
    (folder / "my_sweep.py").write_text(code[1])
    return sweeps.find(str(folder / "my_sweep.py")).parser()


def test_the_example_of_an_own_sweep_is_a_sweep(tmp_path: Path) -> None:
    own(tmp_path)
    stages, _ = sweeps.find(str(tmp_path / "my_sweep.py")).stages(["--seeds", "5"])
    assert len(stages) == 20


def test_every_command_of_the_analysis_is_understood() -> None:
    parsers = {"report": analysis.parser, "verdicts": analysis.verdicts_parser}
    parsers |= {"diff": analysis.diff_parser, "export": analysis.export_parser}
    assert parsers.keys() == ANALYSES.keys() == analysis.COMMANDS.keys()
    for command in commands(ANALYSES):
        name, *rest = shlex.split(command)
        parsers[name]().parse_args(rest)


def test_the_table_is_the_one_that_the_analysis_makes_of_the_committed_runs() -> None:
    folder = ROOT / "results" / "cifar10"
    found = results.load(Path("none"), "cifar10", str(folder / "runs.csv"))
    block = re.search(r"<!-- table: cifar10 -->\n(.*?)<!-- /table -->", TEXT, re.DOTALL)
    assert block and block[1] == tables.summary(found) == (folder / "summary.md").read_text()
    assert "| float " in block[1] and "10,000 test images" in block[1]
    assert tables.markdown(found) == (folder / "table.md").read_text()
    assert latex.table(found) == (folder / "table.tex").read_text()
