"""What a rank does on a GPU, as far as it can be tried without one."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import pytest
import torch
from fakes.ranks import together
from fakes.trainings import QUICK

from suite.cli import running
from suite.cli.main import main
from suite.launch import verify_resume
from suite.ranks import Ranks, from_environment
from suite.recipe.errors import SuiteError
from suite.record.cause import cause_of
from suite.record.files import Folders
from suite.run import training
from suite.run.attempt import Attempt
from suite.run.stage import run
from suite.stop import ASKING, Stop


def test_a_process_that_was_given_a_gpu_and_sees_none_ends_with_the_cause_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SUITE_DEVICE", "cuda")
    with (
        mock.patch.object(torch.cuda, "is_available", return_value=False),
        pytest.raises(SuiteError) as raised,
    ):
        from_environment()
    assert cause_of(error=raised.value) == "node"
    assert cause_of(exit_status=1, logs=f"error: {raised.value}") == "node"


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    with (
        mock.patch.object(torch.cuda, "is_available", return_value=True),
        mock.patch.object(torch.cuda, "device_count", return_value=2),
        pytest.raises(SuiteError, match="rank 2 of this machine has no GPU, of which 2 are visible"),
    ):
        from_environment()


def test_ranks_on_gpus_meet_over_nccl_each_bound_to_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    where = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
    }
    for name, value in where.items():
        monkeypatch.setenv(name, value)
    with (
        mock.patch.object(torch.cuda, "is_available", return_value=True),
        mock.patch.object(torch.cuda, "device_count", return_value=2),
        mock.patch.object(torch.cuda, "set_device"),
        mock.patch.object(torch.distributed, "init_process_group") as joined,
        mock.patch("suite.ranks._same_bits_each_time"),
        mock.patch("suite.ranks._check_own_gpu"),
    ):
        from_environment(2)
    joined.assert_called_once_with("nccl", device_id=torch.device("cuda", 1))


@pytest.mark.parametrize(("gpus", "expected"), [(0, (1, 2)), (1, (1,)), (2, (1, 2))])
def test_verify_resume_takes_one_rank_where_there_is_one_gpu(
    monkeypatch: pytest.MonkeyPatch, gpus: int, expected: tuple[int, ...]
) -> None:
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(verify_resume, "stages", lambda ranks: asked.append(tuple(ranks)))
    monkeypatch.setattr(verify_resume, "verify", lambda *_: iter(()))
    assert main(["verify-resume"]) == 0 and asked == [expected]


def test_on_a_gpu_float32_is_float32_and_new_tensors_are_not_filled() -> None:
    flags = torch.backends.cudnn, torch.backends.cuda.matmul, torch.utils.deterministic
    before = flags[0].allow_tf32, flags[1].allow_tf32, flags[2].fill_uninitialized_memory
    try:
        with (
            mock.patch.object(torch.cuda, "is_available", return_value=True),
            mock.patch.object(torch.cuda, "device_count", return_value=1),
            mock.patch.object(torch.cuda, "set_device"),
        ):
            assert from_environment().device == torch.device("cuda", 0)
        assert torch.are_deterministic_algorithms_enabled()
        assert not (flags[0].allow_tf32 or flags[1].allow_tf32 or flags[2].fill_uninitialized_memory)
    finally:
        torch.use_deterministic_algorithms(False)
        flags[0].allow_tf32, flags[1].allow_tf32, flags[2].fill_uninitialized_memory = before


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("CUDA error: out of memory", "memory"),
        ("CUDA error: unspecified launch failure", "node"),
        ("CUDA error: unknown error", "node"),
        ("Error 802: system not yet initialized", "node"),
        ("No CUDA GPUs are available", "node"),
        ("Found no NVIDIA driver on your system.", "node"),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", "node"),
        ("NCCL error: ncclSystemError: System call (e.g. socket, malloc) failed", "node"),
        ("ncclRemoteError: remote process exited or there was a network error", "node"),
        ("CUDA error: device-side assert triggered", "code"),
    ],
)
def test_the_cause_of_what_cuda_and_nccl_say(words: str, cause: str) -> None:
    assert cause_of(error=RuntimeError(words)) == cause


def test_a_machine_that_cannot_compile_trains_eagerly_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    monkeypatch.delenv("SUITE_COMPILE", raising=False)
    training.eager_because.cache_clear()
    with mock.patch.object(torch, "compile", side_effect=RuntimeError("Failed to find C compiler.\nat all")):
        assert training.eager_because(gpu) == "RuntimeError: Failed to find C compiler."
    training.eager_because.cache_clear()
    monkeypatch.setenv("SUITE_COMPILE", "0")
    assert training.eager_because(gpu) == "SUITE_COMPILE=0"
    training.eager_because.cache_clear()
    assert training.eager_because(torch.device("cpu")) == "on a CPU"


def test_what_compiles_beside_a_run_is_deaf_to_what_asks_it_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM sends its warning to every process of a step; the suite's own saves, and then still needs the others."""
    masks = []

    def compiled(*_: object, **__: object) -> Callable[[torch.Tensor], None]:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return lambda x: None

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.delenv("SUITE_COMPILE", raising=False)
    training.eager_because.cache_clear()
    with mock.patch.object(torch, "compile", compiled), mock.patch.object(torch, "ones"):
        assert training.eager_because(torch.device("cuda", 0)) == ""
    training.eager_because.cache_clear()
    assert masks[0] >= set(ASKING) and signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_while_a_second_step_compiles_no_rank_is_taken_for_stuck(tmp_path: Path) -> None:
    """Which may take minutes, in which a run that was asked to stop has saved nothing yet."""
    seen = []
    with mock.patch.object(Attempt, "save_or_stop", lambda self, *_: seen.append(self.last_step_at)):
        run(QUICK, Ranks(), Folders(tmp_path / "runs", tmp_path), Stop())
    assert len(seen) == 12 and seen[0] == math.inf and all(map(math.isfinite, seen[1:]))


def test_a_rank_that_failed_on_a_gpu_ends_though_kernels_wait_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = mock.Mock(side_effect=SystemExit)
    monkeypatch.setattr(os, "_exit", ended)
    monkeypatch.setattr(running, "find_stages", lambda *_: [QUICK])
    monkeypatch.setattr(running, "from_environment", lambda _: Ranks(0, 0, 2, torch.device("cuda", 0)))
    monkeypatch.setattr("suite.run.stage.run", mock.Mock(side_effect=ValueError("broken")))
    monkeypatch.setattr(running, "watched", lambda *_, **__: nullcontext())
    with pytest.raises(SystemExit):
        main(["run", QUICK.key])
    ended.assert_called_once_with(1)


def test_a_step_over_ranks_has_two_collectives_a_batch_norm_and_one_a_range_in_a_single_graph(
    tmp_path: Path,
) -> None:
    said = together(
        2,
        """
import torch
from torch import distributed, nn
from suite.ranks import from_environment
from suite.arithmetic.affine import Grid
from suite.quantizers.layers import LAYERS, quantize
from suite.ranges.observers import MovingMinMax, Dynamic, observe_over
from suite.quantizers.quantizer import Quantizer
from suite.train.sync_batch_norm import synchronize_batch_norm
ranks = from_environment()
plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
weight = lambda: Quantizer(Grid(8), Dynamic(0), "dynamic", axis=0)
model = quantize(plain, LAYERS, lambda first: Quantizer(Grid(8), MovingMinMax(), "track"), weight).train()
observe_over(model, ranks)
synchronize_batch_norm(model, ranks)
count, usual = 0, distributed.all_reduce
def counted(*words, **named):
    global count
    count += 1
    return usual(*words, **named)
distributed.all_reduce = counted
model(torch.randn(2, 3, 8, 8)).sum().backward()
assert count == 2 * 2 + 2, count
distributed.all_reduce = usual
shared = synchronize_batch_norm(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3)), ranks).train()
explained = torch._dynamo.explain(shared)(torch.randn(2, 3, 4, 4))
assert (explained.graph_count, explained.graph_break_count) == (1, 0), explained
print("fine")
distributed.barrier()
distributed.destroy_process_group()
""",
        tmp_path,
    )
    assert all("fine" in words for words in said)
