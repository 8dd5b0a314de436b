"""How long planning, submitting and asking after a sweep of 500 stages takes, beside submitit doing the same.

All on a real SLURM of four nodes that `slurm/local/cluster` starts on this machine, as root on Debian. Times are
seconds on the clock of whole commands, from the start of Python to the prompt: what a person waits for. Jobs hold
still in their set-up lines and are cancelled after each round; before `status`, each run gets a journal: of 200
epochs, if it trains.

The peer is what people write without a suite: submitit's `map_array`, one array for the trainings and one for the
recipes of each, which waits for its training, and then `job.state` of every job.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from suite.record.journal import Journal

ROOT = Path(__file__).parent.parent
LOCAL = ROOT / "slurm" / "local" / "cluster"
SWEEP = """
from suite.methods.amax import Amax
from suite.methods.k_sigma import KSigma
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training

def sweep(trainings: int = 20, widths: int = 12):
    sgd = Sgd(epochs=1, batch=200, lr=0.05, pad=1, flip=False, precision=Precision("O2", "bfloat16"))
    listed = [Training(Network("resnet20"), Dataset("digits"), sgd, seed=seed) for seed in range(trainings)]
    methods = [method for bits in range(2, 2 + widths) for method in (Amax(bits, bits), KSigma(bits))]
    return [Recipe(training, method) for training in listed for method in methods]
"""
CLUSTER = 'gpus_per_node = 4\ncpus_per_rank = 1\nmemory_gb_per_rank = 1.0\nsetup = ["sleep 600"]\n'
PEER = """
import sys, time
import submitit

def nothing(number):
    return number

trainings, recipes = int(sys.argv[1]), int(sys.argv[2])
executor = submitit.AutoExecutor(folder="submitit")
executor.update_parameters(timeout_min=60, cpus_per_task=1, mem_gb=1, gpus_per_node=1, slurm_setup=["sleep 600"])
began = time.perf_counter()
jobs = executor.map_array(nothing, range(trainings))
first = list(jobs)
for job in first:
    executor.update_parameters(slurm_additional_parameters={"dependency": f"afterok:{job.job_id}"})
    jobs += executor.map_array(nothing, range(recipes))
sent = time.perf_counter()
states = [job.state for job in jobs]
print(len(states), sent - began, time.perf_counter() - sent)
"""


@contextmanager
def local_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a shell that talks to a cluster of four nodes, which is up meanwhile."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
    subprocess.run(
        [LOCAL, "up", folder],
        check=True,
        env=environment | {"MAX_ARRAY_SIZE": "1001"},
        stdout=subprocess.DEVNULL,
    )
    try:
        yield environment | {"SLURM_CONF": str(folder / "etc" / "slurm.conf")}
    finally:
        subprocess.run([LOCAL, "down", folder], check=True, env=environment, stdout=subprocess.DEVNULL)


def seconds(command: list[str], place: Path, environment: dict[str, str]) -> tuple[float, str]:
    """How long a command takes, and what it prints. Raises CalledProcessError, after its errors, where it fails."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    took = time.perf_counter() - began
    if done.returncode:
        sys.stderr.write(done.stdout[-2000:] + done.stderr)
    done.check_returncode()
    return took, done.stdout


def a_round(
    place: Path, environment: dict[str, str], cluster: Path, trainings: int, widths: int
) -> dict[str, float]:
    """The seconds of each command, ours and the peer's, on an empty queue."""
    (place / "big.py").write_text(SWEEP)
    (place / "peer.py").write_text(PEER)
    suite = [sys.executable, "-m", "suite"]
    counts = ["--trainings", str(trainings), "--widths", str(widths)]
    found = {}
    found["plan"], printed = seconds([*suite, "plan", "big.py", *counts], place, environment)
    found["plan --cluster"], printed = seconds(
        [*suite, "plan", "big.py", *counts, "--cluster", str(cluster)], place, environment
    )
    total = trainings * (1 + 2 * widths)
    assert f"{total} stages for" in printed
    launch = [*suite, "launch", "big.py", *counts, "--on", "slurm", "--cluster", str(cluster)]
    found["submit"], printed = seconds(launch, place, environment)
    assert f"{total} of {total} stages sent" in printed, printed
    _write_journals(place / "runs")
    found["status"], printed = seconds([*suite, "status", "big"], place, environment)
    assert f"{total} stages: " in printed and "queued" in printed.rpartition("stages:")[2], printed
    _empty(environment)
    peer = [sys.executable, "peer.py", str(trainings), str(2 * widths)]
    found["submitit, the whole command"], printed = seconds(peer, place, environment)
    count, found["  its map_array"], found["  its job.state"] = map(float, printed.split())
    assert count == total
    _empty(environment)
    return found


def _write_journals(runs: Path) -> None:
    """What runs that go on would have recorded by now: 200 epochs of each training, one evaluation of each recipe."""
    for row in json.loads((runs / "sweeps" / "big.json").read_text())["stages"]:
        folder = runs / row["key"]
        folder.mkdir(exist_ok=True)
        journal = Journal(folder)
        journal.write("started", host="n1", pid=1, device="none", commit="none")
        for epoch in range(1, 201 if row["kind"] == "Training" else 2):
            journal.metrics(epoch, train_loss=1.0, train_top1=50.0, train_images_per_s=900.0)
            journal.metrics(epoch, top1=50.0, top5=90.0, loss=1.0, images_per_s=900.0, model_size_mb=1.1)
        journal.close()


def _empty(environment: dict[str, str]) -> None:
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    subprocess.run(["scancel", f"--user={user}"], check=True, env=environment)
    while subprocess.check_output(["squeue", "--noheader", "--me"], env=environment):
        time.sleep(0.2)


def main() -> None:
    """Print the table and, last, one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trainings", type=int, default=20, help="each with 2 recipes a width")
    parser.add_argument("--widths", type=int, default=12)
    chosen = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        place = Path(folder)
        (place / "cluster.toml").write_text(CLUSTER)
        with local_cluster(place / "slurm") as environment:
            environment |= {"PYTHONPATH": str(ROOT), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
            for number in range(chosen.rounds):
                here = place / f"round-{number}"
                here.mkdir()
                measured = a_round(here, environment, place / "cluster.toml", chosen.trainings, chosen.widths)
                rounds.append(measured)
            version = subprocess.check_output(["sbatch", "--version"], env=environment, text=True).strip()
    stages = chosen.trainings * (1 + 2 * chosen.widths)
    print(
        f"{stages} stages, {len(rounds)} rounds, {version}, python {platform.python_version()}, {os.cpu_count()} cores"
    )
    print(f"{'seconds':28s}{'median':>10s}{'least':>10s}{'most':>10s}")
    median = {}
    for name in rounds[0]:
        values = sorted(measured[name] for measured in rounds)
        median[name] = statistics.median(values)
        print(f"{name:28s}{median[name]:10.2f}{values[0]:10.2f}{values[-1]:10.2f}")
    print("ours also checks every file and data set that the jobs will need, and writes down what it sends")
    summary = {f"{name}_seconds": round(median[name], 3) for name in ("plan", "submit", "status")}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
