"""The commands as a user types them: each bad input gets a clear error before anything runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch
from fakes.commands import SWEEP, refused
from fakes.missing import missing

from suite import networks
from suite.cli.main import COMMANDS, main
from suite.recipe import Network


def test_an_unknown_sweep_is_answered_with_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("plan", "launch"):
        said = refused(capsys, command, "qiuck")
        there = "cifar10, enlarged, explain, imagenet, lowbit, mixed, nin, ptq, published, quick, resnet50, treatments"
        assert f"no sweep 'qiuck'; there is {there}, or give the path of your own .py file" in said
    assert "no file nowhere/mine.py; give the path of your own sweep" in refused(
        capsys, "plan", "nowhere/mine.py"
    )


def test_a_pattern_that_matches_nothing_is_answered_with_what_exists(
    capsys: pytest.CaptureFixture[str], own: str, tmp_path: Path
) -> None:
    said = refused(capsys, "plan", own, "--only", "percentil", "--runs", tmp_path)
    assert "no stage matches --only 'percentil'; there are amax w4a4 seed 0 from " in said


def test_status_of_a_sweep_never_launched_names_those_that_were(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "no sweep 'quick' was planned or launched in" in refused(
        capsys, "status", "quick", "--runs", tmp_path
    )
    assert "no stage has key 'beef'" in refused(capsys, "run", "beef", "--runs", tmp_path)


def checkpoint(folder: Path) -> Path:
    file = folder / "weights.pt"
    torch.save(networks.build(Network("resnet20", "A")).state_dict(), file)
    return file


def test_a_missing_data_folder_is_named_before_anything_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("launch", "cifar10", "--weights", checkpoint(tmp_path), "--runs", tmp_path / "runs")
    said = refused(capsys, *words, "--data", tmp_path / "nowhere")
    assert (
        "no CIFAR-10 in" in said
        and "name another folder with --data, or let `suite launch --download` fetch it" in said
    )
    assert not list((tmp_path / "runs").glob("*/events.jsonl"))


def test_a_damaged_file_of_data_is_named_before_anything_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "cifar10.npz").write_bytes(b"no arrays")
    words = ("launch", "cifar10", "--weights", checkpoint(tmp_path), "--runs", tmp_path / "runs")
    assert "cifar10.npz is no .npz of plain arrays" in refused(capsys, *words, "--data", tmp_path)


def test_a_checkpoint_that_is_missing_wrong_or_of_another_architecture_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, runs = checkpoint(tmp_path), tmp_path / "runs"
    said = refused(capsys, "launch", "cifar10", "--weights", tmp_path / "gone.pt", "--runs", runs)
    assert "no checkpoint" in said and "name the file with --weights" in said
    said = refused(capsys, "launch", "cifar10", "--weights", file, "--sha256", "12fca82f", "--runs", runs)
    assert "not 12fca82f; it is another file or damaged" in said
    said = refused(capsys, "launch", "cifar10", "--weights", file, "--model", "resnet56", "--runs", runs)
    assert "is not a resnet56 with shortcut A and 10 classes" in said and "--model" in said
    said = refused(capsys, "launch", "cifar10", "--weights", file, "--model", "resnet21", "--runs", runs)
    assert "model 'resnet21' is unknown; use one of resnet20" in said
    said = refused(capsys, "plan", "cifar10", "--weights", file, "--normalization", "none", "--runs", runs)
    assert "normalization 'none' is unknown; use one of imagenet, cifar10" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import suite\n\ndef sweep(:\n", "line 3: SyntaxError"),
        (
            "import suite\nimport no_such_package\n",
            "line 2: ModuleNotFoundError: No module named 'no_such_package'",
        ),
        ("def sweep():\n    x = 1\n    return x / 0\n", "line 3: ZeroDivisionError: division by zero"),
        ("stages = []\n", "has no function sweep() that returns its stages"),
        ("def sweep():\n    return []\n", "sweep() must return Stages and at least one"),
        ("def sweep():\n    return ['amax']\n", "sweep() must return Stages and at least one"),
        (
            SWEEP.replace("(8, 4)", "(8, 40)"),
            "weight_bits 40 is out of range; use a whole number from 2 to 16",
        ),
        (
            "def sweep(data: str = 'x'):\n    return []\n",
            "cannot have a parameter 'data', the command line has --data",
        ),
        (
            "from suite.methods.amax import Amax\ndef make():\n    class Mine(Amax):\n        pass\n    return Mine\n"
            + SWEEP.replace("Amax(bits, bits)", "make()(bits, bits)"),
            "uses make.<locals>.Mine, which workers cannot find; put it into a .py file of your own",
        ),
        ("def sweep(bits):\n    return []\n", "parameter 'bits' of sweep() has no type"),
    ],
)
def test_a_broken_sweep_file_is_reported_with_its_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "broken.py").write_text(text)
    assert message in refused(capsys, "plan", tmp_path / "broken.py", "--runs", tmp_path)


def test_a_sweep_file_may_use_ordinary_python(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import Literal\n"
        "@dataclass\nclass Pair:\n    a: int = 1\n" + SWEEP
    ).replace("epochs: Annotated", "kind: Literal['a', 'b'] = 'a', fast: bool = False, epochs: Annotated")
    (tmp_path / "rich.py").write_text(text.replace("epochs of the training", "100 % of the epochs"))
    assert main(["plan", str(tmp_path / "rich.py"), "--kind", "b", "--fast", "--runs", str(tmp_path)]) == 0
    assert main(["plan", str(tmp_path / "rich.py"), "--help"]) == 0
    assert "100 % of the epochs" in capsys.readouterr().out


def test_a_key_that_plan_showed_can_be_run_and_status_takes_the_files_path(
    capsys: pytest.CaptureFixture[str], own: str, tmp_path: Path
) -> None:
    runs = ["--runs", str(tmp_path / "runs")]
    assert main(["plan", own, *runs]) == 0
    key = capsys.readouterr().out.split()[4]
    (tmp_path / "runs" / "sweeps" / "another.json").write_text("{")  # somebody's broken record is no obstacle
    assert main(["run", key[:6], *runs]) == 0
    assert main(["status", own, *runs]) == 0
    assert "3 stages: 1 done, 2 pending" in capsys.readouterr().out


def test_a_name_that_is_a_path_is_refused(
    capsys: pytest.CaptureFixture[str], own: str, tmp_path: Path
) -> None:
    assert "sweep name '../x' is unusable" in refused(
        capsys, "plan", own, "--name", "../x", "--runs", tmp_path
    )
    assert not list(tmp_path.parent.glob("x*"))


def test_training_in_float16_without_a_gpu_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, where float16 is fast")
    (tmp_path / "half.py").write_text(SWEEP.replace('Precision("O0")', 'Precision("O2")'))
    said = refused(capsys, "launch", tmp_path / "half.py", "--runs", tmp_path / "runs")
    assert "trains in float16, which a CPU does some 30 times slower" in said


def test_an_own_file_may_not_take_the_name_of_a_sweep(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "quick.py").write_text(SWEEP)
    assert "rename the file" in refused(capsys, "plan", tmp_path / "quick.py")


def test_a_disk_without_space_is_reported_before_anything_runs(
    capsys: pytest.CaptureFixture[str], own: str, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True
    )
    if mount.returncode:
        missing("a small file system cannot be mounted (needs root)")
    try:
        said = refused(capsys, "launch", own, "--runs", small / "runs")
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert "has 1 MB free, the sweep may need" in said and "choose another folder with --runs" in said


def test_a_runs_folder_from_another_version_is_refused(
    capsys: pytest.CaptureFixture[str], own: str, tmp_path: Path
) -> None:
    assert main(["plan", own, "--runs", str(tmp_path / "runs")]) == 0
    key = capsys.readouterr().out.split()[4]
    folder = tmp_path / "runs" / key
    folder.mkdir()
    (folder / "outcome.json").write_text('{"format": 0, "top1": 99}')
    said = refused(capsys, "launch", own, "--runs", tmp_path / "runs")
    assert "has format 0, this version reads 1; move it away or choose another folder with --runs" in said
    (tmp_path / "runs" / "sweeps" / "own.json").write_text('{"format": 0, "stages": []}')
    assert "has format 0" in refused(capsys, "status", "own", "--runs", tmp_path / "runs")
    (tmp_path / "runs" / "sweeps" / "own.json").write_text("{")
    assert "is not a sweep's record" in refused(capsys, "status", "own", "--runs", tmp_path / "runs")


def test_a_runs_folder_that_cannot_be_written_is_reported(
    capsys: pytest.CaptureFixture[str], own: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in refused(capsys, "launch", own, "--runs", tmp_path / "file" / "runs")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lunch", "quick"], 'Unknown command "lunch". Did you mean "launch"? .*See suite --help'),
        (["plan"], "parameter SWEEP requires an argument. See suite plan --help"),
        (
            ["plan", "cifar10"],
            "cifar10 needs --weights: .*torch.save, or .safetensors. See suite plan cifar10 --help",
        ),
        (["explain", "002", "--sedes", "3"], "Unknown option: --sedes. .*See suite explain --help"),
        (
            ["status", "quick", "--weights", "x"],
            "Unknown option: --weights. There is --only, --watch, --runs, --data. See suite status --help",
        ),
        (
            ["plan", "quick", "--sedes", "3"],
            "Unknown option: --sedes. Did you mean --seeds? Options of the sweep: --seeds, --epochs; of the command: "
            "--runs, .*See suite plan quick --help",
        ),
    ],
)
def test_words_that_are_not_understood_are_named_with_what_there_is(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(message.replace("?", "[?]"), refused(capsys, *words))


def test_no_command_gets_the_commands_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Usage: suite COMMAND" in capsys.readouterr().out


def test_the_usage_of_every_command_has_its_arguments_before_its_options(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        usage = capsys.readouterr().out.splitlines()[0]
        assert usage.startswith(f"Usage: suite {name}") and "[OPTIONS] " not in usage, usage


def test_help_shows_the_commands_examples_and_a_sweeps_own_options(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words, expected in (
        (
            ["--help"],
            ("plan", "launch", "run", "status", "methods", "sync", "suite launch quick --on here"),
        ),
        (["plan", "cifar10", "--help"], ("--only", "--weights", "--shortcut", "the checksum it must have")),
        (["launch", "--help"], ("--only", "--download", "--workers")),
    ):
        assert main(words) == 0
        said = capsys.readouterr().out
        assert all(word in said for word in expected), said


def test_explain_refuses_what_it_cannot_explain(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = refused(capsys, "explain", "003", "--weights", tmp_path / "gone.pt", "--runs", tmp_path)
    assert "no checkpoint" in said
    said = refused(capsys, "plan", "explain", "--source", "005", "--runs", tmp_path)
    assert "source '005' is unknown; use one of 000, 001, 002, 003, 004" in said


def test_methods_lists_every_method_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    from suite.methods import find

    assert main(["methods"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in find()) and "weight_bits=8" in said


def test_plan_shows_each_stage_what_it_needs_and_what_is_shared(
    capsys: pytest.CaptureFixture[str], own: str, tmp_path: Path
) -> None:
    assert main(["plan", own, "--epochs", "2", "--runs", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["key", "stage", "needs", "state"]
    key = lines[1].split()[0]
    name = "train resnet20 digits size 8 O0 2 epochs batch 256 lr 0.05 pad 1 no flip seed 0"
    assert lines[1].split()[1:] == [*name.split(), "pending"]
    assert [line.split()[1:] for line in lines[2:4]] == [
        f"amax w{bits}a{bits} seed 0 from {key[:8]} {key} pending".split() for bits in (8, 4)
    ]
    assert lines[4] == "3 stages for 2 recipes: 0 done, 3 to run; 1 shared, which saves 1 training or loading"
