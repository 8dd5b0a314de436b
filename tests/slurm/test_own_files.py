"""A user's own method, network and data set run on a real SLURM of four nodes, which have the runs folder alone."""

from __future__ import annotations

import numpy as np
from fakes.cluster import CLUSTER, Cluster, Place
from fakes.user_files import METHOD, NETWORK

from suite.recipe import user_files
from suite.record.journal import read_events, read_outcome

LOADER = """
import numpy as np

def load(split, folder):
    content = np.load(folder / f"{split}.npy", allow_pickle=False)
    return content, np.arange(len(content)) % 4
"""

OWN = """
from my_methods import HalfAmax
from suite.recipe import Calibration, Dataset, Network, Precision, Recipe, Sgd, Training

def sweep(ranks: int = 4):
    sgd = Sgd(2, 16, 0.05, pad=1, flip=False, precision=Precision("O0"), world_size=ranks)
    training = Training(Network("my_net.py:build"), Dataset("my_data.py:load"), sgd)
    return [Recipe(training, HalfAmax(bits, bits, feed=Calibration(32, 16))) for bits in (8, 4)]
"""

FILES = {
    "my_parts.py": "SCALE = 0.5\n", "my_methods.py": METHOD, "my_net.py": NETWORK, "my_data.py": LOADER, "own.py": OWN,
}  # fmt: skip


def test_a_users_method_network_and_data_set_run_on_four_nodes_that_have_the_runs_folder_alone(
    place: Place, cluster: Cluster
) -> None:
    """Each of the training's four ranks is on a node of its own. The files are gone before a job begins."""
    place.settings(CLUSTER + """ranks_per_node = 1\nsetup = ["set -euo pipefail", "trap 'exit 3' EXIT"]\n""")
    for name, text in FILES.items():
        (place.folder / name).write_text(text)
    data = place.folder / "data"
    data.mkdir()
    for split, count in (("train", 64), ("test", 32)):
        pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        np.save(data / f"{split}.npy", pixels)
    cluster("scontrol update partitionname=main state=down")  # what is sent stays in the queue
    try:
        assert "3 of 3 stages sent" in place.launch("--data", "data")
        for name in FILES:
            (place.folder / name).unlink()
    finally:
        cluster("scontrol update partitionname=main state=up")
    place.all_done()
    training, folder = place.training()
    [started] = [event for event in read_events(folder) if event["event"] == "started"]
    assert started["job"] and "n[1-4]" in place("status", "own", "--only", "train")
    for stage in place.stages():
        outcome = read_outcome(place.runs / stage.key)
        assert outcome is not None and outcome["images"] == 32
        kept = {file.name for file in (place.runs / stage.key / user_files.KEPT).rglob("*.py")}
        assert {"my_net.py", "my_data.py"} <= kept
    recipes = [stage for stage in place.stages() if stage is not training and stage.needs]
    assert [stage.params["method_file"] for stage in recipes] == ["my_methods.py:HalfAmax"] * 2
    assert "own: all is done" in place("resume", "own")
