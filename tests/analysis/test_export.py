"""What is exported has types, its holes are holes, and it is what the runs recorded."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from fakes.pages import metrics
from fakes.runs_folder import begin, finish, plan, stage

from analysis.__main__ import main


def sweep(runs: Path) -> None:
    """One run that trained, one that is done with other parameters, one that has not begun."""
    start = stage("float", 32, 0, epochs=2, lr=0.5, nesterov=False, milestones="1,2")
    listed = [start, stage("amax", 8, 0, start, feed_images=64), stage("linear", 8, 0, start, map_back=True)]
    plan(runs, *listed)
    finish(runs, start, 92.0)
    begin(
        runs, start, metrics(1, train_loss=2.0), metrics(1, top1=30.5), metrics(2, train_loss=None, top1=92.0)
    )
    finish(runs, listed[1], 91.0)


def test_a_row_a_run_and_a_row_a_metric_of_an_epoch_with_types(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(tmp_path / "runs")
    files = [tmp_path / name for name in ("out.parquet", "out-epochs.parquet", "out.csv", "out-epochs.csv")]
    words = [
        "export",
        "small",
        "--runs",
        str(tmp_path / "runs"),
        "--parquet",
        str(files[0]),
        "--csv",
        str(files[2]),
    ]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == [str(file) for file in files]
    runs, epochs = (pd.read_parquet(file) for file in files[:2])
    wanted = {
        "key": "string", "seed": "int64", "test_images": "Int64", "top1": "float64", "dirty": "boolean",
        "nesterov": "boolean", "map_back": "boolean", "epochs": "Int64", "feed_images": "Int64", "lr": "float64",
        "milestones": "string", "state": "string",
    }  # fmt: skip
    assert {name: str(runs[name].dtype) for name in wanted} == wanted
    assert runs["state"].tolist() == ["done", "done", "pending"] and runs["top1"].isna().tolist() == [
        False,
        False,
        True,
    ]
    assert runs["feed_images"].isna().tolist() == [True, False, True] and runs["map_back"][2]
    values = epochs[["epoch", "metric", "value"]].values.tolist()
    assert values == [[1, "train_loss", 2.0], [1, "top1", 30.5], [2, "top1", 92.0]]
    assert [str(kind) for kind in epochs.dtypes] == ["string", "string", "int32", "string", "float32"]
    assert pd.read_csv(files[2])["top1"].tolist()[:2] == [92.0, 91.0] and len(pd.read_csv(files[3])) == 3


def test_a_sweep_that_trains_nothing_has_an_empty_table_of_epochs(tmp_path: Path) -> None:
    plan(tmp_path, stage("amax", 8, 0))
    assert main(["export", "small", "--runs", str(tmp_path), "--parquet", str(tmp_path / "out.parquet")]) == 0
    assert len(pd.read_parquet(tmp_path / "out-epochs.parquet")) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export"], "parameter SWEEP requires an argument. See suite export --help"),
        (["export", "small"], "export wants a file to write; give --parquet FILE or --csv FILE, or both"),
    ],
)
def test_an_export_without_a_file_says_what_it_wants(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1
