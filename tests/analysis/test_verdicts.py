"""Every published number has its verdict, from the runs of all sweeps of a folder."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes.runs_folder import QAT, Json, finish, plan, stage

from analysis.__main__ import main
from analysis.errors import AnalysisError
from analysis.read import published
from analysis.report import verdicts

LINEAR = {
    "act_bits": 32, "rounding": "truncate", "map_back": False, "input_cast": True, "dtype": "float32",
    "weights_evaluated": False, "batch_statistics": True, "batch_norm": "of each batch", "every_tensor": True,
}  # fmt: skip
LABELLED = LINEAR | {"weights_evaluated": True, "batch_statistics": False, "batch_norm": "quantized"}


def finished(runs: Path, one: Json, right: int) -> None:
    """A run that has the first `right` of 10,000 images right."""
    packed = base64.b64encode(np.packbits(np.arange(10_000) < right).tobytes()).decode()
    finish(runs, one, right / 100, correct=packed, top5=100.0 * (right > 5000))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two sweeps that share a float network: of source 000 as it ran and as its label says, and a training of 001."""
    start = stage("float", 32, 0)
    ran, labelled = (stage("linear", 8, 0, start, **params) for params in (LINEAR, LABELLED))
    trained = stage("qat_symmetric", 8, 0, start, **QAT)
    plan(tmp_path, start, ran, sweep="one")
    plan(tmp_path, start, labelled, trained, sweep="two")
    for one, right in ((start, 9170), (ran, 5810), (labelled, 0), (trained, 9160)):
        finished(tmp_path, one, right)
    return tmp_path


def test_every_number_has_a_verdict_from_whatever_sweep_its_runs_are_of(runs: Path) -> None:
    found = verdicts.load(runs).table
    assert found["id"].tolist() == [number.id for number in published.load().numbers]
    judged = found.set_index("id")
    assert judged["verdict"].value_counts().to_dict() == {
        "not run": 15, "measures something else": 2, "model not stated": 2, "other model or data": 1,
    }  # fmt: skip
    assert verdicts.summary(found).startswith(
        "20 published numbers. Not run: 15; measures something else: 2; "
    )
    assert judged.loc["000-int8-top1"]["rerun"] == "other model or data"


def test_the_change_to_what_the_label_says_is_paired_over_the_images(runs: Path) -> None:
    judged = verdicts.load(runs).table.set_index("id").loc["000-int8-top1"]
    assert (judged["ours"], judged["ours_labelled"], judged["change"]) == (58.1, 0.0, pytest.approx(-58.1))
    half = 1.96 * (5810 - 5810**2 / 10_000) ** 0.5 / 100
    assert (judged["low"], judged["high"]) == (pytest.approx(-58.1 - half), pytest.approx(-58.1 + half))
    assert judged["p"] < 1e-100
    top5 = verdicts.load(runs).table.set_index("id").loc["000-int8-top5"]
    assert top5["change"] == -100 and pd.isna(top5["low"])  # of a top-5 no image's answer is kept


def test_the_change_is_that_of_the_seeds_that_both_have(runs: Path) -> None:
    for seed in (1, 2):
        more = stage("linear", 8, seed, stage("float", 32, seed), **LINEAR)
        plan(runs, stage("float", 32, seed), more, sweep=f"seed {seed}")
        finished(runs, more, 7000)
    judged = verdicts.load(runs).table.set_index("id").loc["000-int8-top1"]
    assert judged["n"] == 3 and judged["ours"] == pytest.approx((58.1 + 70 + 70) / 3)
    assert judged["change"] == pytest.approx(-58.1) and judged["low"] < judged["change"] < judged["high"]


def test_a_number_that_several_runs_judge_has_a_row_for_each(runs: Path) -> None:
    again = stage("linear", 8, 0, stage("float", 32, 0), **LINEAR, feed_images=128)
    labelled = stage("linear", 8, 0, stage("float", 32, 0), **LABELLED, feed_images=128)
    plan(runs, stage("float", 32, 0), again, labelled, sweep="three")
    for one, right in ((again, 6000), (labelled, 10)):
        finished(runs, one, right)
    found = verdicts.load(runs).table
    assert found[found["id"] == "000-int8-top1"]["ours"].tolist() == [58.1, 60.0]
    assert len(found) == 22 and "20 published numbers" in verdicts.summary(found)


def test_what_cannot_be_read_is_reported_and_ends_nothing(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "sweeps" / "bad.json").write_text("{}")
    (broken,) = [path for path in runs.glob("*/outcome.json") if json.loads(path.read_text())["top1"] == 91.6]
    broken.write_text("{broken")
    assert main(["verdicts", "--runs", str(runs), "--out", str(runs / "out")]) == 0
    errors = capsys.readouterr().err
    assert "bad.json has format None" in errors and f"{broken} is not JSON" in errors


def test_the_command_writes_table_and_quotes_and_puts_them_into_a_readme(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Mine\n<!-- table: verdicts -->\n<!-- /table -->\nend\n")
    assert (
        main(["verdicts", "--runs", str(runs), "--out", str(tmp_path / "out"), "--readme", str(readme)]) == 0
    )
    text = (tmp_path / "out/verdicts/verdicts.md").read_text()
    shown = readme.read_text()
    assert shown.startswith("# Mine\n<!-- table: verdicts -->\n**16 published numbers. Not run: ")
    assert shown.endswith("method.\n<!-- /table -->\nend\n")
    assert len(re.findall(r"\n\| .* \(00[0-3]\)", shown)) == 16 and "top-5" not in shown
    rows = [re.split(r" *\| *", line) for line in text.splitlines() if re.match(r"\| .* \(00[0-3]\)", line)]
    texts = {row[1]: row[2:-1] for row in rows}
    assert texts["symmetric model (001), top-1"][:2] == ["89.00, drop 2.00", "91.60, drop 0.10"]
    assert texts["8 bit (000), top-1"][-2:] == ["other model or data", "measures something else"]
    for number in published.load().numbers:
        assert number.quote in text
    assert len(pd.read_csv(tmp_path / "out/verdicts/verdicts.csv")) == 20
    shown = capsys.readouterr().out
    assert "measures something else" in shown and "20 published numbers." in shown


def test_a_folder_without_a_sweep_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AnalysisError, match="holds no sweep"):
        verdicts.load(tmp_path)
    assert main(["verdicts", "--runs", str(tmp_path)]) == 2 and "holds no sweep" in capsys.readouterr().err
