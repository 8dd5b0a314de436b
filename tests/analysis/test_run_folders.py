"""Run directories are read as they are: holes stay, what is broken is named, and the rest is shown."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
from pathlib import Path

import pandas as pd
import pytest
from fakes.runs_folder import Json, begin, finish, plan, spoil, stage

from analysis.__main__ import main
from analysis.errors import AnalysisError
from analysis.read.run_folders import load, parameters


def test_every_stage_of_the_plan_is_a_row_in_its_order_whatever_became_of_it(tmp_path: Path) -> None:
    start = stage("float", 32, 0)
    stages = [start, *(stage("amax", bits, 0, start) for bits in (8, 4, 3, 2))]
    plan(tmp_path, *stages)
    finish(tmp_path, stages[0], 91.5)
    begin(tmp_path, stages[1], {"event": "metrics", "step": 1, "values": {"top1": 50.0}})
    begin(tmp_path, stages[2], {"event": "failed", "error": "boom\nand more", "traceback": "..."})
    finish(tmp_path, stages[4], 10.0)
    killed = load(tmp_path, "small")[0]
    with (tmp_path / stages[1]["key"] / "lock").open(
        "w"
    ) as lock:  # held as a process that runs the stage holds it
        fcntl.flock(lock, fcntl.LOCK_EX)
        table = load(tmp_path, "small")[0]
    assert list(table["key"]) == [one["key"] for one in stages]
    assert list(table["state"]) == ["done", "running", "failed", "pending", "done"]
    assert list(killed["state"]) == ["done", "stopped", "failed", "pending", "done"]
    assert list(table["error"]) == [None, None, "boom", None, None]
    assert list(table["attempts"]) == [1, 1, 1, 0, 1]
    assert list(table["start"]) == [None, *[start["key"]] * 4]
    assert table["top1"].isna().tolist() == [False, True, True, True, False]
    assert table["versions"][0] == "python 3.11.15, torch 2.13.0"


def test_parameters_become_columns_and_none_where_a_stage_has_them_not(tmp_path: Path) -> None:
    start = stage("float", 32, 0, epochs=30)
    plan(tmp_path, start, stage("histogram", 8, 0, start, search=True))
    table = load(tmp_path, "small")[0]
    assert table["epochs"].tolist() == [30, None] and table["search"].tolist() == [None, True]
    assert {"epochs", "search", "model", "seed"} <= set(parameters(table))


def test_a_parameter_called_like_an_outcome_is_kept_beside_it(tmp_path: Path) -> None:
    only = stage("histogram", 8, 0, loss="mse")
    plan(tmp_path, only)
    finish(tmp_path, only, 91.0)
    table = load(tmp_path, "small")[0]
    assert table["loss"].tolist() == [0.3] and table["param_loss"].tolist() == ["mse"]


def test_torn_and_garbage_lines_of_a_journal_are_skipped(tmp_path: Path) -> None:
    only = stage("amax", 8, 0)
    plan(tmp_path, only)
    journal = begin(tmp_path, only) / "events.jsonl"
    with journal.open("ab") as file:
        file.write(
            b'{"seq": 1, "ti\n\xff\xfe\n[1]\n{"seq": 2, "time": 2, "attempt": 2, "event": "failed", "error": "full"}\n'
        )
        file.write(b'{"seq": 3, "attempt": 3, "ev')
    table = load(tmp_path, "small")[0]
    assert table.loc[0, ["state", "error", "attempts"]].tolist() == ["failed", "full", 2]


def test_a_run_that_failed_and_then_finished_is_done_without_an_error(tmp_path: Path) -> None:
    only = stage("amax", 8, 0)
    plan(tmp_path, only)
    finish(tmp_path, only, 90.0)
    begin(tmp_path, only, {"event": "failed", "error": "boom"}, {"event": "started", "attempt": 2})
    assert load(tmp_path, "small")[0].loc[0, ["state", "error", "attempts"]].tolist() == ["done", None, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"top1": "high"}, r"outcome\.json has top1 'high', which is no number; remove the file"),
        ({"top1": 917.0}, r"outcome\.json has top1 917\.0, which is no percent; remove the file"),
        ({"top1": float("nan")}, r"outcome\.json has top1 nan, which is no percent; remove the file"),
        ({"images": 0}, r"outcome\.json has images 0, which is no count of test images; remove the file"),
        ({"top1": None}, r"outcome\.json has top1 None, which is no percent; remove the file"),
        (
            {"key": "f" * 16},
            r"outcome\.json belongs to stage 'f{16}', not to '[0-9a-f]{16}'; remove the file",
        ),
    ],
)
def test_an_outcome_that_cannot_be_true_is_named_and_the_rest_is_shown(
    tmp_path: Path, content: Json, message: str
) -> None:
    bad, good = stage("amax", 8, 0), stage("amax", 8, 1)
    plan(tmp_path, bad, good)
    finish(tmp_path, bad, 90.0, **content)
    finish(tmp_path, good, 90.5)
    table = load(tmp_path, "small")[0]
    assert table["state"].tolist() == ["failed", "done"]
    assert re.search(message, table["problem"][0]) and table["problem"][1] is None
    assert table["top1"].tolist()[1] == 90.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"top1": 9', r"outcome\.json is not JSON \(.*\); remove the file and run the stage again"),
        ("[]", r"outcome\.json holds a list, not a JSON object; remove the file and run the stage again"),
    ],
)
def test_an_outcome_that_is_no_json_object_is_named(tmp_path: Path, text: str, message: str) -> None:
    only = stage("amax", 8, 0)
    plan(tmp_path, only)
    (finish(tmp_path, only, 90.0) / "outcome.json").write_text(text)
    table = load(tmp_path, "small")[0]
    assert table["state"].tolist() == ["failed"] and re.search(message, table["problem"][0])


def test_a_run_directory_of_another_format_is_named_and_its_number_is_not_used(tmp_path: Path) -> None:
    only = stage("amax", 8, 0)
    plan(tmp_path, only)
    finish(tmp_path, only, 90.0)
    begin(tmp_path, only, format=2)
    table = load(tmp_path, "small")[0]
    assert re.search(
        r"stage\.json has format 2 and this analysis reads 1; run the stage", table["problem"][0]
    )
    assert table["state"].tolist() == ["failed"] and table["top1"].isna().all()


def test_an_unknown_sweep_is_answered_with_those_that_exist(tmp_path: Path) -> None:
    for name in ("quick", "cifar10"):
        plan(tmp_path, stage("amax", 8, 0), sweep=name)
    with pytest.raises(AnalysisError, match=r"sweeps holds no sweep 'quack'; it holds cifar10, quick$"):
        load(tmp_path, "quack")[0]


def test_a_folder_without_sweeps_says_how_to_give_another(tmp_path: Path) -> None:
    with pytest.raises(
        AnalysisError, match="holds no sweep; give the folder of the runs with --runs or SUITE_RUNS"
    ):
        load(tmp_path, "quick")[0]


def test_a_sweep_of_another_format_is_refused(tmp_path: Path) -> None:
    plan(tmp_path, stage("amax", 8, 0), version=7)
    with pytest.raises(
        AnalysisError, match=r"small\.json has format 7 and this analysis reads 1; plan the sweep"
    ):
        load(tmp_path, "small")[0]


def test_a_sweep_without_stages_is_refused(tmp_path: Path) -> None:
    plan(tmp_path)
    with pytest.raises(AnalysisError, match=r"small\.json lists no stages; plan the sweep again"):
        load(tmp_path, "small")[0]


def test_a_stage_without_its_parameters_is_refused_by_name(tmp_path: Path) -> None:
    only = stage("amax", 8, 0)
    del only["params"]["weight_bits"], only["kind"]
    plan(tmp_path, only)
    with pytest.raises(
        AnalysisError, match=r"stage 'amax w8a8 seed 0' lacks kind, params\.weight_bits; plan"
    ):
        load(tmp_path, "small")[0]


def test_the_best_epoch_is_kept_beside_the_last(tmp_path: Path) -> None:
    one = stage("float", 32, 0)
    plan(tmp_path, one, stage("amax", 8, 0, one))
    events = [
        {"event": "metrics", "step": epoch, "values": {"train_loss": 1.0, "top1": top1}}
        for epoch, top1 in ((1, 50.0), (2, 90.12), (3, 90.12), (4, 80.0))
    ]
    finish(tmp_path, one, 80.0)
    begin(tmp_path, one, *events)
    first, second = load(tmp_path, "small")[0].to_dict("records")
    assert (first["top1"], first["best_epoch"], first["best_top1"]) == (80.0, 2, 90.12)
    assert pd.isna(second["best_epoch"]) and math.isnan(second["best_top1"])


DEEP = "[" * 100_000


HUGE = 10**400


HOSTILE: dict[str, tuple[Json | str, str, str]] = {
    "outcome nested": (DEEP, "outcome.json", "is not JSON"),
    "seconds": ({"seconds": HUGE}, "outcome.json", "has seconds 1000"),
    "size": ({"model_size_mb": math.inf}, "outcome.json", "has model_size_mb inf, which is no number"),
    "top5": ({"top5": 101.0}, "outcome.json", "has top5 101.0, which is no percent"),
    "half an image": ({"images": 599.5}, "outcome.json", "has images 599.5, which is no count"),
    "device": ({"device": {"a": 1}}, "stage.json", "has device {'a': 1}, which is no str"),
    "dirty": ({"dirty": [1]}, "stage.json", "has dirty [1], which is no bool"),
    "origin nested": (DEEP, "stage.json", "is not JSON"),
    "link": ("/dev/zero", "outcome.json", "outcome.json is a link; remove the file"),
    "fifo": ("fifo", "outcome.json", "outcome.json is no regular file"),
    "large": ("large", "outcome.json", "outcome.json has more than 64 MiB"),
    "journal fifo": ("fifo", "events.jsonl", "events.jsonl is no regular file; remove its folder"),
    "journal link": ("/dev/zero", "events.jsonl", "events.jsonl is a link"),
}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("case", HOSTILE)
def test_a_run_that_cannot_be_read_keeps_its_row_and_ends_no_report(tmp_path: Path, case: str) -> None:
    content, name, reason = HOSTILE[case]
    bad, good = stage("amax", 8, 0), stage("amax", 8, 1)
    plan(tmp_path / "runs", bad, good)
    for one in (bad, good):
        finish(tmp_path / "runs", one, 90.0)
    spoil(tmp_path / "runs" / bad["key"] / name, content)
    words = ["small", "--runs", str(tmp_path / "runs")]
    assert main([*words, "--out", str(tmp_path)]) == 0
    assert main(["export", *words, "--csv", str(tmp_path / "out.csv")]) == 0
    found = pd.read_csv(tmp_path / "out.csv")
    assert found["state"].tolist() == ["failed", "done"] and reason in found["problem"][0]


@pytest.mark.parametrize(
    "line",
    [
        DEEP,
        *(
            json.dumps({"seq": 9, "time": 1.5, "attempt": 1, "event": "metrics", "step": 1} | changed)
            for changed in (
                {"values": {"train_loss": HUGE}},
                {"step": 2**31, "values": {"train_loss": 1.0}},
                {"time": HUGE},
                {"attempt": HUGE},
            )
        ),
    ],
    ids=range(5),
)
def test_a_line_of_a_journal_that_no_number_holds_is_left_out(tmp_path: Path, line: str) -> None:
    only = stage("float", 32, 0)
    plan(tmp_path, only)
    events = {"event": "metrics", "step": 2, "values": {"train_loss": 1.0, "top1": 50.0}}
    with (begin(tmp_path, only, events) / "events.jsonl").open("a") as file:
        file.write(f"{line}\n")
    table, curves = load(tmp_path, "small")
    assert table.loc[0, ["state", "attempts", "best_epoch"]].tolist() == ["stopped", 1, 2]
    assert curves[only["key"]].epochs.tolist()[-1] == 2 and table["run_seconds"][0] == 0


def test_a_lock_that_is_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    only = stage("amax", 8, 0)
    plan(tmp_path, only)
    os.mkfifo(begin(tmp_path, only) / "lock")
    assert load(tmp_path, "small")[0]["state"].tolist() == ["stopped"]
