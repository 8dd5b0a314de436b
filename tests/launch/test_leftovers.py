"""What another launcher left in the environment neither hangs nor silences a run; what cannot be is said at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import pytest
import torch

from slurm import worker
from suite.data.workers import default_workers
from suite.launch.environment import gpu_names, only_gpus, worker_environment
from suite.launch.local_process import elastic
from suite.ranks import Ranks, from_environment
from suite.recipe.errors import SuiteError
from suite.run import attempt

LEFT: dict[str, Mapping[str, str]] = {
    "a rank": {"RANK": "1"},
    "empty": {"RANK": "", "LOCAL_RANK": "", "WORLD_SIZE": "", "LOCAL_WORLD_SIZE": "", "MASTER_ADDR": ""},
    "Kubeflow": {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "job-0", "MASTER_PORT": "23456"},
    "words": {"RANK": "first", "WORLD_SIZE": "all", "LOCAL_RANK": "n/a"},
}


@pytest.fixture(autouse=True)
def _cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {"TORCHELASTIC_RUN_ID", "SLURM_PROCID"}.union(*LEFT.values()):
        monkeypatch.delenv(name, raising=False)


def leave(patch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        patch.setenv(name, value)


@pytest.mark.parametrize("what", LEFT)
def test_a_run_of_one_rank_runs_and_records_whatever_was_left(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    leave(monkeypatch, LEFT[what])
    assert from_environment(1) == Ranks(), "it does not wait for others, and it writes"


def test_torchrun_that_starts_two_ranks_for_a_stage_of_one_is_refused_before_they_meet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leave(monkeypatch, {"RANK": "1", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"})
    with pytest.raises(SuiteError, match="world_size 1, but is run by 2 ranks"):
        from_environment(1)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "the stage has world_size 2, but is run by 1 rank; start it with torchrun"),
        ({"RANK": "0", "WORLD_SIZE": "4"}, "world_size 2, but is run by 4 ranks"),
        (
            {"RANK": "2", "WORLD_SIZE": "2"},
            "RANK is 2, and WORLD_SIZE 2; another launcher may have left it: unset",
        ),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is '-1', which is no whole number"),
        ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', which is no whole number"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR and MASTER_PORT are not set, where ranks meet"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "no-such.invalid", "MASTER_PORT": "1"},
            "the ranks meet at no-such.invalid, which .* cannot resolve .*set MASTER_ADDR to an IP address",
        ),
    ],
)
def test_ranks_that_could_only_wait_for_ever_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], words: str
) -> None:
    def unknown(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    leave(monkeypatch, variables)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # no name server is asked
    with pytest.raises(SuiteError, match=words):
        from_environment(2)


def test_a_launcher_hands_nothing_on_that_another_one_left(monkeypatch: pytest.MonkeyPatch) -> None:
    left = {
        "PET_NNODES": "2",
        "PET_MASTER_ADDR": "x",
        "TORCHELASTIC_RUN_ID": "x",
        "GROUP_RANK": "1",
        "ROLE_NAME": "w",
    }
    leave(monkeypatch, {**LEFT["Kubeflow"], "NODE_RANK": "1", "LOCAL_WORLD_SIZE": "2", **left})
    leave(monkeypatch, {"MY_RANK": "1", "MASTER_KEY": "x"})
    here = worker_environment()
    assert not {*left, *LEFT["Kubeflow"], "NODE_RANK", "LOCAL_WORLD_SIZE"} & here.keys()
    assert {"MY_RANK", "MASTER_KEY"} <= here.keys()
    assert "--local-addr=127.0.0.1" in elastic(2), "the name of the machine may not resolve"


def test_a_job_has_nothing_that_another_launcher_left_in_the_shell_it_was_sent_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With torchrun's TORCHELASTIC_USE_AGENT_STORE no rank serves the others, and all wait for ten minutes."""
    left = {
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RUN_ID": "x",
        "PET_NNODES": "2",
        "GROUP_RANK": "1",
    }
    of_slurm = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "2", "SLURM_NNODES": "1"}
    of_slurm |= {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1"}
    monkeypatch.setattr(os, "environ", {**of_slurm, **left, **LEFT["Kubeflow"], "WORLD_SIZE": "9"})
    worker._set_ranks(tmp_path)
    assert not left.keys() & os.environ.keys()
    assert (os.environ["WORLD_SIZE"], os.environ["MASTER_ADDR"]) == ("2", "n1")
    assert os.environ["MASTER_PORT"] != "23456"


@pytest.mark.parametrize(
    ("visible", "count", "names"),
    [
        (None, 2, ["0", "1"]),
        ("", 2, ["0", "1"]),
        ("3, 5", 2, ["3", "5"]),
        ("GPU-5a-1,GPU-6b-2", 2, ["GPU-5a-1", "GPU-6b-2"]),
        ("MIG-5a-1", 1, ["MIG-5a-1"]),
        ("MIG-GPU-5a/1/0,MIG-GPU-5a/2/0", 1, ["MIG-GPU-5a/1/0"]),  # CUDA gives a process one instance
        ("0,-1,1", 1, ["0"]),
    ],
)
def test_a_launcher_hands_out_gpus_by_the_names_that_it_was_given(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int, names: list[str]
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_names(count) == names


def test_on_rocm_a_worker_sees_its_gpus_under_the_name_that_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert only_gpus(["1"]) == {"CUDA_VISIBLE_DEVICES": "1", "SUITE_DEVICE": "cuda"}
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "2,3")
    assert gpu_names(2) == ["2", "3"] and only_gpus(["3"])["HIP_VISIBLE_DEVICES"] == "3"


def test_an_empty_number_of_data_workers_is_none_and_a_wrong_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leave(monkeypatch, {"SUITE_DATA_WORKERS": "", "LOCAL_WORLD_SIZE": ""})
    assert default_workers() == min(16, len(os.sched_getaffinity(0)))
    monkeypatch.setenv("SUITE_DATA_WORKERS", "many")
    with pytest.raises(SuiteError, match="SUITE_DATA_WORKERS is 'many'; set it to a whole number"):
        default_workers()


@pytest.mark.parametrize(("text", "seconds"), [("", 300.0), ("0", 0.0), ("1e1", 10.0)])
def test_seconds_between_saves_are_read(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float) -> None:
    monkeypatch.setenv("SUITE_SAVE_SECONDS", text)
    assert attempt._save_seconds() == seconds
    for wrong in ("often", "-1", "nan", "inf"):
        monkeypatch.setenv("SUITE_SAVE_SECONDS", wrong)
        with pytest.raises(SuiteError, match=f"SUITE_SAVE_SECONDS is '{wrong}'; set it to a number of sec"):
            attempt._save_seconds()


@pytest.mark.parametrize(("bound", "local_rank", "number"), [(True, 3, 0), (True, 0, 0), (False, 0, 0)])
def test_a_rank_to_which_slurm_binds_one_gpu_takes_the_one_that_it_sees(
    monkeypatch: pytest.MonkeyPatch, bound: bool, local_rank: int, number: int
) -> None:
    """As with --gpus-per-task: each rank sees one GPU, whose number is 0."""
    leave(monkeypatch, {"LOCAL_RANK": str(local_rank), **({"SLURM_PROCID": "3"} if bound else {})})
    with (
        mock.patch.object(torch.cuda, "is_available", return_value=True),
        mock.patch.object(torch.cuda, "device_count", return_value=1),
        mock.patch.object(torch.cuda, "set_device") as chosen,
        mock.patch("suite.ranks._same_bits_each_time"),
    ):
        assert from_environment().device == torch.device("cuda", number)
    chosen.assert_called_once_with(torch.device("cuda", number))


@pytest.mark.parametrize(("uuids", "refused"), [(["GPU-a", "GPU-b"], False), (["GPU-a", "GPU-a"], True)])
def test_two_ranks_on_one_gpu_are_refused(
    monkeypatch: pytest.MonkeyPatch, uuids: list[str], refused: bool
) -> None:
    from suite import ranks

    monkeypatch.setattr(Ranks, "each", lambda self, value: [f"{uuid} of n1" for uuid in uuids])
    with mock.patch.object(torch.cuda, "get_device_properties"):
        if not refused:
            return ranks._check_own_gpu(Ranks(0, 0, 2))
        with pytest.raises(
            SuiteError, match="two ranks have one GPU, GPU-a of n1; use as many ranks as GPUs"
        ):
            ranks._check_own_gpu(Ranks(0, 0, 2))
