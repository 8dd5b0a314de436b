"""The sbatch scripts, as they are sent."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from fakes import ROOT
from fakes.cluster import CLUSTER
from fakes.user import SWEEP

from slurm import sbatch
from slurm.cluster import Cluster, read_cluster
from slurm.launcher import Slurm
from slurm.sender import Sender
from suite import sweeps
from suite.recipe import plan
from suite.recipe.errors import SuiteError
from suite.record.files import Folders


def test_the_scripts_that_are_sent(tmp_path: Path) -> None:
    """Golden: two trainings of two nodes in one array, their recipes after each. `UPDATE=1` writes it anew."""
    golden = ROOT / "tests" / "golden" / "sbatch.txt"
    (tmp_path / "own.py").write_text(SWEEP)
    (tmp_path / "runs" / "slurm").mkdir(parents=True)
    (tmp_path / "runs" / "slurm" / "owner").write_text('"golden"')
    on_gpus = CLUSTER.replace('environment.SUITE_DEVICE = "cpu"\n', "")
    (tmp_path / "cluster.toml").write_text(
        on_gpus + 'partition = "gpu"\naccount = "lab"\nsetup = ["module load cuda"]\n'
        '[environment]\nHTTPS_PROXY = "http://proxy:3128"\n'
    )
    cluster = read_cluster(tmp_path / "cluster.toml")
    listed, _ = sweeps.find(str(tmp_path / "own.py")).stages(["--ranks", "8", "--seeds", "2"])
    planned = Sender(Folders(tmp_path / "runs", tmp_path / "data"), cluster).planned(plan(listed), 1001)
    text = re.sub(r"/code/\w+", "/code/DIGEST", "\n".join(text for _, text in planned))
    text = text.replace(str(tmp_path), "/PLACE").replace(sys.executable, "/PYTHON")
    if os.environ.get("UPDATE"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


def asked(folder: Path, cluster: Cluster) -> list[str]:
    written = sbatch.text(
        folder / "slurm" / "suite-x", 1, 1, (), cluster, Folders(folder, folder), folder, ()
    )
    return [line.removeprefix("#SBATCH ") for line in written.splitlines() if line.startswith("#SBATCH")]


def test_options_of_the_cluster_file_are_added_and_take_the_place_of_the_suites(tmp_path: Path) -> None:
    cluster = Cluster(
        gpus_per_node=4,
        sbatch={"gres": "gpu:a100:4", "exclusive": True, "mem": False, "comment": "it's mine", "nice": 10},
        srun={"container-image": "/a b.sqsh", "kill-on-bad-exit": 0},
    )
    words = asked(tmp_path, cluster)
    assert {"--gres=gpu:a100:4", "--exclusive", "--nice=10"} <= set(words)
    assert ["--comment=it's mine"] in [shlex.split(word) for word in words]
    assert not [word for word in words if word.startswith(("--mem", "--gpus-per-node"))]
    usual = asked(tmp_path, Cluster(gpus_per_node=4))
    assert "--gpus-per-node=1" in usual and "--mem=8000MB" in usual
    assert "--mem=8000MB" not in asked(tmp_path, Cluster(sbatch={"mem-per-cpu": "4G"}))
    srun = next(
        line
        for line in sbatch.text(
            tmp_path / "suite-x", 1, 1, (), cluster, Folders(tmp_path, tmp_path), tmp_path, ()
        ).splitlines()
        if line.startswith("srun")
    )
    assert "--container-image=/a b.sqsh" in shlex.split(srun) and "--kill-on-bad-exit=0" in srun


def test_a_plan_shows_the_scripts_where_there_is_no_slurm_and_says_that_nothing_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "cluster.toml").write_text("minutes = 60\ngpus_per_node = 4\n[recipe]\nminutes = 20\n")
    (tmp_path / "own.py").write_text(SWEEP)
    listed, _ = sweeps.find(str(tmp_path / "own.py")).stages(["--seeds", "2"])
    made = Slurm(Folders(tmp_path / "runs", tmp_path), tmp_path / "cluster.toml")
    shown = made.preview(plan(listed))
    assert len(shown.jobs) == 3 and "not checked: there is no SLURM on this machine" in shown.total
    assert sorted(text.count("--time=20\n") for _, text in shown.jobs) == [0, 1, 1]
    with pytest.raises(SuiteError, match="there is no sinfo on this machine"):
        made.check(plan(listed))
