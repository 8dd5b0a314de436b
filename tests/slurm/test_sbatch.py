"""The sbatch scripts, as they are sent."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from fakes import ROOT
from fakes.cluster import CLUSTER
from fakes.user import SWEEP

from slurm.cluster import read_cluster
from slurm.sender import Sender
from suite import sweeps
from suite.recipe import plan
from suite.record.files import Folders


def test_the_scripts_that_are_sent(tmp_path: Path) -> None:
    """Golden: two trainings of two nodes in one array, their recipes after each. `UPDATE=1` writes it anew."""
    golden = ROOT / "tests" / "golden" / "sbatch.txt"
    (tmp_path / "own.py").write_text(SWEEP)
    (tmp_path / "runs" / "slurm").mkdir(parents=True)
    (tmp_path / "runs" / "slurm" / "owner").write_text('"golden"')
    (tmp_path / "cluster.toml").write_text(
        CLUSTER + 'partition = "gpu"\naccount = "lab"\nsetup = ["module load cuda"]\n'
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
