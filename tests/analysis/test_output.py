"""What the analysis writes: the table, the figures, the files and the command line."""

from __future__ import annotations

import csv
import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.runs_folder import begin, finish
from fakes.sweeps import small
from rich.console import Console

import analysis
from analysis.__main__ import main, replaced
from analysis.errors import AnalysisError
from analysis.page import write
from analysis.report import results, tables, terminal

MODULES = sorted(module.name for module in pkgutil.walk_packages(analysis.__path__, "analysis."))
GOLDEN = """\
**resnet20 on cifar10**

| method         | source | weights |  acts |      top-1 % (n) |           95 % |        drop |           95 % |    MB | published               | its top-1 | its drop | verdict              |
| -------------- | ------ | ------: | ----: | ---------------: | -------------: | ----------: | -------------: | ----: | ----------------------- | --------: | -------: | -------------------- |
| float          |        |   float | float | 91.50 ± 0.71 (2) | 85.15 to 97.85 |             |                |  1.09 | original model (001)    |     91.00 |          | model not stated     |
|                |        |         |       |                  |                |             |                |       | fp32 original (002)     |     93.62 |          | other model or data  |
| qat_asymmetric | 001    |       8 |     8 |  failed (0 of 2) |                |             |                |       | asymmetric model (001)  |     89.00 |     2.00 | not run              |
| k_sigma        | 003    |       9 | float | 90.50 ± 0.71 (2) | 84.15 to 96.85 | 1.00 ± 0.00 |   0.21 to 1.79 | 0.306 | 8 bit (003), best epoch |     90.26 |          | reproduced ±1.92     |
| k_sigma        | 003    |       5 | float |   10.00 (1 of 2) |  9.43 to 10.60 |       81.00 | 80.19 to 81.81 |  0.17 | 4 bit (003), best epoch |     83.99 |          | not reproduced ±0.95 |
| a\\|b           |        |       4 |     4 | not run (0 of 2) |                |             |                |       |                         |           |          |                      |

- Measured: resnet20 on cifar10, 10,000 test images, seeds: 0, 1.
- Device: AMD EPYC, 1 thread. Versions: python 3.11.15, torch 2.13.0. Commit: 0123456789.
- Top-1: mean ± sample standard deviation over n seeds. Drop: float top-1 minus top-1, in points, each run against its own start. MB: size of the model as stored.
- 95 %: of the mean over seeds by Student's t, or of one run by its number of test images, whichever is wider; both ends of a drop count as if measured on images of their own. A run is evaluated after its last epoch, never at its best; a published best epoch is called one.
- Reproduced: the published number and our re-run of what its source ran, as far as that is known, differ by no more than the larger of 0.5 points and 2 standard errors; on another network this is asked of the drops from float. A number measures something else where doing what its label says gives another result than the re-run, and the published one lies nearer to the re-run. Behind the ±: how far they may differ.
- Source 001, Quantization on Pytorch: an article on the quantizer of https://github.com/666DZY666/micronet, author and address unknown.
- Source 003, Post-Training Quantization: a course notebook of 2023 on the code of https://github.com/yhhhli/APoT_Quantization, no public copy found.
- asymmetric model (001): the text names no network, and disagrees with its code on the scale and on the moving average.
- 4 bit (003): 15 levels and a sign are 31 values: 5 bits stored.
- 8 bit (003): 255 levels and a sign are 511 values: 9 bits stored.
- Not done: 1 failed, 4 pending of 10 stages.
- Failed: qat_asymmetric w8a8 seed 0: CUDA out of memory
- Published, and not part of this sweep: 16 bit (000); 8 bit (000); 4 bit (000); Float, 16 bit (000); symmetric model (001); 8bit built-in (002); 8bit hist (002); 8bit fake-hist (002); 4bit hist (002); 4bit fake-hist (002); 3bit fake-hist (002).
"""  # noqa: E501


def test_the_markdown_table_is_this_one(tmp_path: Path) -> None:
    small(tmp_path)
    assert tables.markdown(results.load(tmp_path, "small")) == GOLDEN


def test_several_commits_and_devices_are_listed_with_their_runs(tmp_path: Path) -> None:
    stages = small(tmp_path)
    begin(tmp_path, stages[0], commit="f" * 40, dirty=True, device="NVIDIA H200")
    found = results.load(tmp_path, "small")
    (line,) = (line for line in tables.notes(found) if "Commit" in line)
    assert "Device: AMD EPYC, 1 thread (4 runs); NVIDIA H200 (1 run)." in line
    assert "Commit: 0123456789 (4 runs); ffffffffff with uncommitted changes (1 run)." in line


@pytest.mark.usefixtures("undrawn")
def test_the_csv_holds_unrounded_numbers_and_every_configuration(tmp_path: Path) -> None:
    small(tmp_path / "runs")
    assert main(["small", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]) == 0
    with (tmp_path / "small" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows].count("float") == 2 and len(rows) == 6
    assert {row["method"] for row in rows} == {"float", "qat_asymmetric", "k_sigma", "a|b"}
    assert float(rows[0]["top1_sd"]) == pytest.approx(0.5**0.5, abs=1e-12)


def test_the_terminal_shows_the_table_and_then_the_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small(tmp_path / "runs")
    assert main(["small", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    names = ["runs.csv", "table.csv", "published.csv", "table.md", "table.tex", "summary.md"]
    names += ["accuracy.svg", "drop.svg", "size.svg", "report.html"]
    assert out.splitlines()[-10:] == [str(tmp_path / "small" / name) for name in names]
    assert err.splitlines()[0] == "reading the runs of small" and len(err.splitlines()) < 5
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == sorted(names)
    assert "90.50 ± 0.71 (2)" in out and "a|b" in out and "failed (0 of 2)" in out


@pytest.mark.usefixtures("undrawn")
def test_a_broken_run_is_named_on_stderr_and_the_rest_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = small(tmp_path)
    (tmp_path / stages[1]["key"] / "outcome.json").write_text("{")
    assert main(["small", "--runs", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert "outcome.json is not JSON" in capsys.readouterr().err
    assert "91.00 (1 of 2)" in (tmp_path / "out" / "small" / "table.md").read_text()


@pytest.mark.parametrize(
    "arguments", [["nothing"], [], ["small", "--what"], ["small", "--readme", "none.md"]]
)
def test_a_wrong_command_is_one_line_on_stderr_and_exit_2(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    small(tmp_path)
    code = main([*arguments, "--runs", str(tmp_path), "--out", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert code == 2 and not out and len(err.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_help_imports_neither_pandas_nor_matplotlib() -> None:
    program = "import sys, analysis.__main__ as m; m.main(['--help'])\n"
    program += "print([name for name in ('pandas', 'numpy', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--readme" in done.stdout and done.stdout.splitlines()[-1] == "[]"


def test_only_the_block_of_the_sweep_is_replaced_in_the_readme(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    other = "<!-- table: big -->\nkept\n<!-- /table -->\n"
    readme.write_text(f"above\n{other}<!-- table: small -->\nold\n<!-- /table -->\nbelow\n")
    once = replaced(readme, "small", "new\n")
    assert once == f"above\n{other}<!-- table: small -->\nnew\n<!-- /table -->\nbelow\n"
    readme.write_text(once)
    assert replaced(readme, "small", "new\n") == once


@pytest.mark.parametrize(("text", "count"), [("", 0), ("<!-- table: small -->\n", 1)])
def test_a_readme_without_the_block_is_refused(tmp_path: Path, text: str, count: int) -> None:
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(
        AnalysisError, match=f"has {count} blocks for 'small'; put one <!-- table: small --> and"
    ):
        replaced(tmp_path / "README.md", "small", "")


def test_every_example_in_a_docstring_is_true() -> None:
    results = [
        doctest.testmod(importlib.import_module(name)) for name in MODULES if name != "analysis.__main__"
    ]
    assert sum(result.failed for result in results) == 0 and sum(result.attempted for result in results) >= 6


def test_the_analysis_imports_none_of_the_suites_heavy_libraries() -> None:
    program = f"import sys, importlib\nfor name in {MODULES}: importlib.import_module(name)\n"
    program += "print(sorted({'torch', 'mlflow', 'submitit'} & set(sys.modules)), len(sys.modules) > 100)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[] True\n" and len(MODULES) >= 30


def test_a_folder_that_cannot_be_written_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small(tmp_path)
    (tmp_path / "taken").write_text("a file")
    assert main(["small", "--runs", str(tmp_path), "--out", str(tmp_path / "taken")]) == 2
    assert "Not a directory" in capsys.readouterr().err


def test_a_result_without_a_finite_loss_is_named_below_the_table(tmp_path: Path) -> None:
    stages = small(tmp_path)
    finish(tmp_path, stages[1], 0.0, loss=None)
    line = "The loss is not finite (outputs overflowed; an image whose output is NaN counts as wrong): k_sigma at 9."
    assert line in tables.notes(results.load(tmp_path, "small"))


def test_nothing_in_a_table_commands_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    made = terminal.table(
        "a table", [("name", False), ("state", False)], [["\x1b]0;x\x07", "done"]], {}, [], 80
    )
    Console().print(made)
    assert main(["report", "\x1b[2Jx", "--runs", "nowhere"]) == 2
    said = "".join(capsys.readouterr())
    assert "?]0;x?" in said and not {"\x1b", "\x07"} & set(said)


def test_the_title_of_the_page_counts_networks_and_data_sets_apart() -> None:
    nets, sets = ("resnet20", "mobilenet_v2"), ("digits", "cifar10")
    assert write.title([(nets[0], sets[0])]) == "What quantizing resnet20 on digits costs"
    assert write.title([(net, sets[0]) for net in nets]) == "What quantizing 2 networks on digits costs"
    every = [(net, data) for net in nets for data in sets]
    assert write.title(every) == "What quantizing 2 networks on 2 data sets costs"
