"""Several ranks are one: real gloo processes train, count and end as one process does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from fakes import ROOT
from fakes.forking import Forked
from fakes.ranks import meeting, together
from fakes.statuses import status_of
from fakes.waiting import limit, until

from suite.recipe import Stage
from suite.record.journal import read_events
from suite.sweeps.stored import load_sweep

SAME_OUTCOME = """
import copy, sys, torch
from torch import nn
from torch.nn import functional as F
from suite.data.images import Images
from suite.train.evaluate import evaluate
from suite.run.layer_report import confusion
from suite.methods.qat_asymmetric import QatAsymmetric
from suite.ranges.observers import Observer
from suite.ranks import Ranks, from_environment
from suite.recipe import Dataset, Precision, Sgd
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized
from suite.train.fit import fit

WORLD = int(sys.argv[1])
ranks = from_environment()

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2, self.linear = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 10)
    def forward(self, x):
        x = F.softplus(self.bn1(self.conv1(x)))  # smooth: where ReLU bends, a rounding error would be a jump
        return self.linear(F.softplus(self.bn2(self.conv2(x))).mean((2, 3)))

generator = torch.Generator().manual_seed(0)
images = Images(
    torch.randint(0, 256, (83, 3, 12, 12), dtype=torch.uint8, generator=generator),
    torch.randint(0, 10, (83,), generator=generator),
    Dataset("cifar10", size=12),
)

def trained(ranks, with_quantizers):
    torch.manual_seed(0)
    model = quantized(QatAsymmetric().steps()[:1], InMemoryFeed(Small())) if with_quantizers else Small()
    sgd = Sgd(2, 20, 0.05, precision=Precision("O0"), world_size=ranks.world_size)  # 83 = 4 * 20 + 3
    *_, last = fit(model, images, sgd, 0, ranks)
    return model, last.read()

for with_quantizers in (False, True):
    model, reading = trained(ranks, with_quantizers)
    for name, buffer in model.named_buffers():
        assert all(torch.equal(buffer, theirs) for theirs in ranks.each(buffer)), name
    *_, score = evaluate(copy.deepcopy(model), images, ranks, batch=7)
    assert score.images == 83
    if ranks.writes:
        alone, expected = trained(Ranks(), with_quantizers)
        assert abs(reading.loss - expected.loss) < (2e-3 if with_quantizers else 1e-5), (reading, expected)
        assert abs(reading.top1 - expected.top1) < (2.5 if with_quantizers else 1e-9)
        state = model.state_dict()
        for name, value in alone.state_dict().items():
            if value.is_floating_point():
                error = (state[name] - value).norm() / value.norm().clamp_min(1e-3)
                # A value on the edge of a step of the grid may round the other way: 1/255 of a range.
                assert error < (2e-2 if with_quantizers else 1e-5), (name, float(error))
        ranges = [m for m in model.modules() if isinstance(m, Observer)]
        assert bool(ranges) == with_quantizers
        *_, once = evaluate(copy.deepcopy(model), images, Ranks(), batch=7)
        assert (score.top1, score.top5) == (once.top1, once.top5) and torch.equal(score.correct, once.correct)
        assert torch.equal(score.correct, score.predicted == images.labels)
        tables = [confusion(images.labels, one.predicted, 10, None) for one in (score, once)]
        assert tables[0] == tables[1] and sum(sum(row.values()) for row in tables[0]["rows"]) == 83
assert ranks.agree(ranks.rank == 0) and not ranks.agree(ranks.rank == 1)
print("rank", ranks.rank, "fine")
torch.distributed.destroy_process_group()
"""


def torchrun(ranks: int, *words: str, folder: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={ranks}",
        *words,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("world_size", [5, pytest.param(2, marks=pytest.mark.long)])
def test_ranks_that_share_batches_train_as_one_does(world_size: int, tmp_path: Path) -> None:
    """Float32, BatchNorm, moving ranges, an uneven last batch of 3 (of 5 ranks two have no image of it): parameters
    and statistics within 1e-5 of one rank's; equal buffers on all ranks; every image counted once."""
    assert all("fine" in said for said in together(world_size, SAME_OUTCOME, tmp_path, str(world_size)))


def test_batch_norm_over_ranks_is_torchs_batch_norm_where_one_rank_has_all(tmp_path: Path) -> None:
    """In float64, forward, gradient and statistics, against torch's own on the whole batch: of one to three
    dimensions, without weights, without statistics, and with those of all batches."""
    said = together(
        2,
        """
import torch
from torch import nn
from suite.ranks import from_environment
from suite.train.sync_batch_norm import synchronize_batch_norm

def check(make, *shape):
    x, target = torch.randn(2, 7, 4, *shape, dtype=torch.float64).unbind()
    whole, shared = make().double(), synchronize_batch_norm(make().double(), ranks)
    x.requires_grad_()
    share = slice(ranks.rank, None, 2)
    for _ in range(2):
        x.grad = None
        (whole(x) * target).square().sum().backward()
        expected, x.grad = x.grad.clone(), None
        (shared(x[share]) * target[share]).square().sum().backward()
        assert torch.allclose(x.grad[share], expected[share], rtol=1e-12, atol=1e-12)
    for one, other in zip(shared.buffers(), whole.buffers(), strict=True):
        assert torch.allclose(one, other, rtol=1e-12)
    if whole.affine:
        assert torch.allclose(ranks.sum(shared.weight.grad), whole.weight.grad, rtol=1e-12)
    assert torch.allclose(shared.eval()(x), whole.eval()(x), rtol=1e-12)

ranks = from_environment()
torch.manual_seed(0)
check(lambda: nn.BatchNorm2d(4), 5, 5)
check(lambda: nn.BatchNorm1d(4))
check(lambda: nn.BatchNorm1d(4, momentum=None), 5)
check(lambda: nn.BatchNorm3d(4, affine=False), 2, 3, 3)
check(lambda: nn.BatchNorm2d(4, track_running_stats=False), 3, 3)
print("rank", ranks.rank, "fine")
torch.distributed.destroy_process_group()
""",
        tmp_path,
    )
    assert all("fine" in words for words in said)


SWEEP = """
from suite.methods.amax import Amax
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training

def sweep(epochs: int = 1, ranks: int = 2, seeds: int = 1):
    sgd = Sgd(epochs=epochs, batch=100, lr=0.05, pad=1, flip=False, precision=Precision("O0"), world_size=ranks)
    trainings = [Training(Network("resnet20"), Dataset("digits", size=8), sgd, seed=seed) for seed in range(seeds)]
    return [Recipe(training, Amax(8, 8)) for training in trainings]
"""


def suite(folder: Path, *words: str) -> Forked:
    (folder / "wide.py").write_text(SWEEP)
    return Forked(words, folder, {**os.environ, "PYTHONPATH": str(ROOT), "SUITE_RUNS": str(folder / "runs")})


@pytest.mark.long  # tests/launch/test_contract.py has torchrun with two ranks
def test_torchrun_runs_two_trainings_of_two_ranks_side_by_side_on_four_slots(
    tmp_path: Path, database: bytes
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").write_bytes(database)
    words = ("--workers", "4", "--gpus-per-run", "2", "--ranks", "1", "--seeds", "2")
    said, _ = suite(tmp_path, "launch", "wide.py", "--on", "torchrun", *words).communicate(timeout=limit(240))
    assert "\n4 stages: 4 done\n" in said, said
    assert said.count("epoch 1/1  test top-1") == 2 and "images/s" in said
    stages = load_sweep(tmp_path / "runs", "wide")
    trained = [stage for stage in stages if stage.trains_by]
    assert [stage.world_size for stage in trained] == [2, 2], "--gpus-per-run replaces what the sweep says"
    times = [[event["time"] for event in read_events(tmp_path / "runs" / s.key)] for s in trained]
    assert times[0][0] < times[1][-1] and times[1][0] < times[0][-1]
    for stage in trained:
        started = [e for e in read_events(tmp_path / "runs" / stage.key) if e["event"] == "started"]
        assert len(started) == 1, "one rank writes"


def test_gpus_per_run_that_cannot_be_is_refused(tmp_path: Path) -> None:
    said, _ = suite(tmp_path, "launch", "wide.py", "--gpus-per-run", "2").communicate(timeout=limit(60))
    assert "--on here gives it up to 1; use --on torchrun" in said
    words = ("--on", "torchrun", "--workers", "2")
    said, _ = suite(tmp_path, "launch", "wide.py", *words, "--gpus-per-run", "0").communicate(
        timeout=limit(60)
    )
    assert "--gpus-per-run 0 is too few" in said
    said, _ = suite(tmp_path, "launch", "wide.py", *words, "--ranks", "3").communicate(timeout=limit(60))
    assert "is shared by 3 ranks, and here one run has up to 2" in said


def running(training: Stage) -> dict[int, psutil.Process]:
    """By rank the processes that run the stage."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended
            words = process.cmdline()
            if training.key in words and "torch.distributed.run" not in words:
                found[int(process.environ()["RANK"])] = process
    return found


def test_when_a_rank_is_killed_the_others_end_within_seconds_and_the_record_says_so(tmp_path: Path) -> None:
    """Without torchrun, which would end them."""
    suite(tmp_path, "plan", "wide.py", "--epochs", "100000").communicate(timeout=limit(60))
    training = load_sweep(tmp_path / "runs", "wide")[0]
    words = ("run", training.key, "--runs", "runs")
    first, second = (Forked(words, tmp_path, {**os.environ, **one}) for one in meeting(2))
    progress = tmp_path / "runs" / training.key / "progress.json"
    until(lambda: progress.exists() or first.poll() is not None)
    second.kill()
    assert first.wait(limit(60)) != 0
    now = status_of(training, tmp_path / "runs")
    assert now.state == "failed" and "another rank ended without a message" in now.error, first.communicate()


@pytest.mark.long
@pytest.mark.parametrize("victim", [1, 0])
def test_when_a_rank_of_torchrun_is_killed_the_others_end_within_seconds_and_the_record_says_so(
    tmp_path: Path, victim: int
) -> None:
    suite(tmp_path, "plan", "wide.py", "--epochs", "500").communicate(timeout=limit(60))
    training = load_sweep(tmp_path / "runs", "wide")[0]
    process = torchrun(2, "-m", "suite", "run", training.key, "--runs", "runs", folder=tmp_path)
    progress = tmp_path / "runs" / training.key / "progress.json"
    until(lambda: progress.exists() or process.poll() is not None)
    assert process.poll() is None, process.communicate()[0]
    ranks = running(training)
    assert ranks.keys() == {0, 1}
    ranks[victim].kill()
    began = time.monotonic()
    said, _ = process.communicate(timeout=limit(120))
    assert time.monotonic() - began < limit(30) and process.returncode != 0
    assert not running(training)
    now = status_of(training, tmp_path / "runs")
    if victim == 0:
        assert now.state == "stopped"  # it could write no last word; the lock says that nobody works on it
    else:
        assert now.state == "failed" and "another rank ended without a message" in now.error, said[-2000:]


FAILING = """
import sys
from pathlib import Path
from suite.data.images import Images
from suite.ranks import from_environment
from suite.record.files import Folders
from suite.run.stage import run
from suite.sweeps.stored import find_stages
ranks = from_environment()
if ranks.rank == 1:
    def broken(*_):
        raise ValueError("a picture of rank 1 is upside down")
    Images.train_batches = broken
stage = find_stages(Path("runs"), [sys.argv[1]])[0]
run(stage, ranks, Folders(Path("runs"), Path("data")))
"""


def test_the_error_of_another_rank_is_what_the_record_says(tmp_path: Path) -> None:
    suite(tmp_path, "plan", "wide.py").communicate(timeout=limit(60))
    training = load_sweep(tmp_path / "runs", "wide")[0]
    words = (training.key,)
    both = [Forked(words, tmp_path, {**os.environ, **one}, program=FAILING) for one in meeting(2)]
    assert all(process.wait(limit(60)) != 0 for process in both)
    now = status_of(training, tmp_path / "runs")
    assert now.state == "failed"
    assert now.error == "rank 1: ValueError: a picture of rank 1 is upside down"
    assert "train_batches" in now.journal[-1]["traceback"] or "broken" in now.journal[-1]["traceback"]
