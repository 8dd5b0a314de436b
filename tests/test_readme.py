"""The commands, links, examples and tables of the README and of docs/ are true."""

from __future__ import annotations

import csv
import re
import shlex
import sys
from pathlib import Path

import pytest

from analysis.read import published
from analysis.report import latex, results, sound_methods, tables
from suite import sweeps
from suite.cli.main import command_line
from suite.methods import find
from suite.recipe import plan, user_files

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {file.name: file.read_text() for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}


def test_every_link_leads_to_a_file_and_to_a_heading_of_it() -> None:
    files = [
        *ROOT.glob("*.md"),
        *(f for name in ("docs", "results", "checkpoints") for f in (ROOT / name).rglob("*.md")),
    ]
    texts = {file: file.read_text() for file in files}
    links = {
        (file, link)
        for file, text in texts.items()
        for link in re.findall(r"\]\(([^)\s]+)\)", text)
        if not link.startswith("http")
    }
    assert len(links) > 100
    wrong = []
    for file, link in links:
        path, _, heading = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        if not target.exists() or (heading and heading not in headings(texts[target])):
            wrong.append((file.relative_to(ROOT).as_posix(), link))
    assert wrong == []


def headings(text: str) -> set[str]:
    """What a link to each heading ends in on GitHub."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_linked_from_the_readme_which_is_one_page_long() -> None:
    assert [name for name in PAGES if name != "README.md" and f"](docs/{name})" not in README] == []
    assert len(README.splitlines()) <= 120


def test_the_methods_that_are_listed_are_those_of_the_suite_and_a_command_lists_all() -> None:
    listed = re.findall(r"\[(\w+)\]\(suite/methods/(\w+)\.py\)", README)
    assert len(listed) > 20 and all(name == file in find() for name, file in listed)
    assert "`suite methods`" in README


def test_the_first_two_commands_are_the_main_job_and_the_tests() -> None:
    commands = re.findall(r"^(?:make|python) .*", README, re.MULTILINE)
    assert [command.split("#")[0].split() for command in commands[:2]] == [
        ["make", "sweep"],
        ["make", "test"],
    ]


def test_every_target_of_make_that_is_named_is_one() -> None:
    named = {name for text in PAGES.values() for name in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M)}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"sweep", "test", "slurm-up"} <= named <= targets


def test_every_benchmark_that_is_named_is_there_with_its_options() -> None:
    for text in PAGES.values():
        for name, words in re.findall(r"python -m benchmarks\.(\w+)([^`\n#]*)", text):
            there = (ROOT / "benchmarks" / f"{name}.py", ROOT / "benchmarks" / name / "__main__.py")
            code = "".join(file.read_text() for file in there if file.exists())
            assert name == "NAME" or code, name
            assert [
                option for option in re.findall(r"--[a-z0-9-]+", words) if f'"{option}"' not in code
            ] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_understood(page: str, tmp_path: Path) -> None:
    for command in re.findall(r"(?:^|`|/bin/)suite ([a-z][^`\n#]*)", PAGES[page], re.MULTILINE):
        words = shlex.split(command)
        if (len(words) == 1 and command_line()[words[0]]) or "..." in words:
            continue  # a command that is spoken of
        function, bound, unused = command_line().parse_args(words, exit_on_error=False, print_error=False)
        assert callable(function) and not unused, command
        if of_sweep := bound.arguments.get("words"):
            name = bound.arguments.get("sweep", "explain")
            of_sweep = [*(["--source", bound.arguments["source"]] if name == "explain" else []), *of_sweep]
            sweeps.find(own(tmp_path) if name.endswith(".py") else name).options.parse(of_sweep)


def own(folder: Path) -> str:
    """The first sweep of docs/sweeps.md, as a user's file."""
    code = re.search(r"```python\n(.*?)```", PAGES["sweeps.md"], re.DOTALL)
    assert code
    (folder / "my_sweep.py").write_text(code[1])
    return str(folder / "my_sweep.py")


def test_the_example_of_an_own_sweep_is_a_sweep(tmp_path: Path) -> None:
    stages, _ = sweeps.find(own(tmp_path)).stages(["--seeds", "5"])
    assert len(stages) == 20


def test_the_files_that_your_own_shows_make_a_sweep_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```python\n# (\w+\.py)[^\n]*\n(.*?)```", PAGES["your-own.md"], re.DOTALL)
    for name, code in blocks:
        (tmp_path / name).write_text(code)
    (tmp_path / "mine.pt").write_bytes(b"weights")
    words = ["--seeds", "2", "--weights", f"{tmp_path}/mine.pt"]
    monkeypatch.setattr(user_files, "BESIDE", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    stages, _ = sweeps.find(str(tmp_path / "mine_all.py")).stages(words)
    assert len(stages) == 6 and stages[-1].name.startswith("clipped w4a4")
    assert len(sweeps.find(str(tmp_path / "own.py")).stages([])[0]) == 4
    assert len(sweeps.find(str(tmp_path / "mine.py")).stages(words[2:])[0]) == 3
    most = {name: len(code.splitlines()) for name, code in blocks}
    assert len(most) == 6 and max(most.values()) <= 18
    monkeypatch.delitem(sys.modules, "my_method")


@pytest.mark.parametrize("name", ["resnet50", "cifar10"])
def test_the_tables_are_those_that_the_analysis_makes_of_the_committed_runs(name: str) -> None:
    folder = ROOT / "results" / name
    found = results.load(Path("none"), name, str(folder / "runs.csv"))
    block = re.search(rf"<!-- table: {name} -->\n(.*?)<!-- /table -->", README, re.DOTALL)
    assert block and block[1] == sound_methods.table(found)
    assert "| float " in block[1] and "10,000 test images" in block[1]
    assert tables.summary(found) == (folder / "summary.md").read_text()
    assert tables.markdown(found) == (folder / "table.md").read_text()
    assert latex.table(found) == (folder / "table.tex").read_text()


def test_the_readme_counts_the_published_numbers_as_they_are() -> None:
    numbers = published.load().numbers
    words = f"{sum(number.metric == 'top1' for number in numbers)} top-1 accuracies ({len(numbers)} numbers"
    assert words in " ".join(README.split())


def test_the_readme_counts_the_verdicts_as_they_are() -> None:
    with (ROOT / "results" / "verdicts" / "verdicts.csv").open(newline="") as file:
        found = {row["id"]: row for row in reversed(list(csv.DictReader(file)))}
    others = [row for row in found.values() if row["verdict"] == "measures something else"]
    reproduced = sum(row["verdict"] == "drop reproduced" for row in found.values())
    words = (
        f"Of the {len(found)}, {len(others)} measure something other than what their label says "
        f"({sum(row['metric'] == 'top1' for row in others)} of the 16), {reproduced} are reproduced as a drop from "
        f"float, and {len(found) - len(others) - reproduced} cannot be judged"
    )
    assert words in " ".join(README.split())


def test_the_pages_count_the_recipes_of_resnet50_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    recipes, _ = sweeps.find("resnet50").stages(["--weights", str(tmp_path / "weights")])
    assert f"{len(recipes)} recipes on ResNet-50" in PAGES["sweeps.md"]


def test_the_pages_count_the_stages_of_the_quick_sweep_as_they_are() -> None:
    stages, _ = sweeps.find("quick").stages([])
    assert f"quantizes {len(stages)} times" in README
    every = len(plan(stages))
    assert f'"{every} stages: {every} done"' in PAGES["gpu.md"]


def test_sound_parameters_are_fields_of_the_methods_they_are_of() -> None:
    methods = find()
    for name, wanted in published.load().sound.items():
        if wanted is not False:
            assert wanted.keys() <= vars(methods[name]()).keys(), name
