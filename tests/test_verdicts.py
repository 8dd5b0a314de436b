"""Every published number has its verdict, from the runs of all sweeps of a folder."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_analysis_frame import QAT, Json, finish, plan, stage

from analysis import published, verdicts
from analysis.__main__ import main
from analysis.errors import AnalysisError

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
    found = verdicts.load(runs)
    assert found["id"].tolist() == [number.id for number in published.load().numbers]
    said = found.set_index("id")
    assert said["verdict"].value_counts().to_dict() == {
        "not run": 15, "measures something else": 2, "model not stated": 1, "drop not reproduced": 1,
        "other model or data": 1,
    }  # fmt: skip
    assert verdicts.summary(found).startswith("20 published numbers: 15 not run, 2 measures something else, ")


def test_the_change_to_what_the_label_says_is_paired_over_the_images(runs: Path) -> None:
    said = verdicts.load(runs).set_index("id").loc["000-int8-top1"]
    assert (said["ours"], said["ours_labelled"], said["change"]) == (58.1, 0.0, pytest.approx(-58.1))
    half = 1.96 * (5810 - 5810**2 / 10_000) ** 0.5 / 100
    assert (said["low"], said["high"]) == (pytest.approx(-58.1 - half), pytest.approx(-58.1 + half))
    assert said["p"] < 1e-100
    top5 = verdicts.load(runs).set_index("id").loc["000-int8-top5"]
    assert top5["change"] == -100 and pd.isna(top5["low"])  # of a top-5 no image's answer is kept


def test_a_number_that_several_runs_judge_has_a_row_for_each(runs: Path) -> None:
    again = stage("qat_symmetric", 8, 0, stage("float", 32, 0), **QAT, from_scratch=True)
    plan(runs, stage("float", 32, 0), again, sweep="three")
    finished(runs, again, 9000)
    found = verdicts.load(runs)
    rows = found[found["id"] == "001-symmetric"]
    assert rows["verdict"].tolist() == ["drop not reproduced", "drop reproduced"]
    assert len(found) == 21 and "20 published numbers" in verdicts.summary(found)


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
    assert shown.startswith("# Mine\n<!-- table: verdicts -->\n**20 published numbers: 15 not run, ")
    assert (
        shown.endswith("|\n<!-- /table -->\nend\n") and shown.count("\n| 00") == 16 and "top-5" not in shown
    )
    assert "| 001 symmetric model, top-1" in text and "| 89.00, drop 2.00 | 91.60, drop 0.10 |" in text
    assert "| drop not reproduced ±1.00" in text and "measures something else  " in text
    for number in published.load().numbers:
        assert number.quote in text
    assert len(pd.read_csv(tmp_path / "out/verdicts/verdicts.csv")) == 20
    shown = capsys.readouterr().out
    assert "measures something else" in shown and "20 published numbers:" in shown


def test_a_folder_without_a_sweep_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AnalysisError, match="holds no sweep"):
        verdicts.load(tmp_path)
    assert main(["verdicts", "--runs", str(tmp_path)]) == 2 and "holds no sweep" in capsys.readouterr().err
