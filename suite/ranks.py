"""Which process this is among those that run one stage: made once in the worker, passed down."""

from __future__ import annotations

import ctypes
import os
import platform
import socket
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from suite.recipe.errors import SuiteError, first_line
from suite.recipe.words import counted

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ranks:
    """`rank` of `world_size` over all `nodes`, `local_rank` on this node, and the device this one computes on."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    device: torch.device = CPU
    nodes: int = 1

    @property
    def writes(self) -> bool:
        """True on the one rank that writes records: rank 0 of all, not the first of each node."""
        return self.rank == 0

    def check(self, wanted: int) -> None:
        """Raise SuiteError unless as many ranks run as the stage's world_size asks."""
        if self.world_size != wanted:
            raise SuiteError(
                f"the stage has world_size {wanted}, but is run by {counted(self.world_size, 'rank')}; "
                f"start it with torchrun --nproc-per-node={wanted} -m suite run KEY"
            )

    def agree(self, choice: bool) -> bool:
        """Rank 0's `choice`, on every rank."""
        flag = torch.tensor(int(choice), device=self.device)
        if self.world_size > 1:
            distributed.broadcast(flag, 0)
        return bool(flag)

    def share_buffers(self, model: nn.Module) -> None:
        """Give every rank rank 0's BatchNorm statistics and ranges, which differ where each normalized its share."""
        if self.world_size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)

    def sum(self, counts: Tensor) -> Tensor:
        """`counts`, of any shape, summed over all ranks; the same tensor on each, and the one given."""
        if self.world_size > 1:
            distributed.all_reduce(counts)
        return counts

    def max(self, values: Tensor) -> Tensor:
        """The largest of each of the `values`, of any shape, over all ranks; the same tensor on each, and the one
        given."""
        if self.world_size > 1:
            distributed.all_reduce(values, distributed.ReduceOp.MAX)
        return values

    def each(self, value: Any) -> list[Any]:
        """What every rank has, in their order."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def leave(self) -> None:
        """Part from the other ranks when all are here: one that ends while others still communicate may
        abort them."""
        if self.world_size > 1:
            distributed.barrier()
            distributed.destroy_process_group()


def from_environment(wanted: int | None = None) -> Ranks:
    """Ranks as torchrun sets them (RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE); one rank without. Joins the
    process group. `wanted` is how many ranks the stages need, where that is known: what another launcher left in the
    environment is not taken for more.

    Raises SuiteError where other ranks run than are `wanted`, where the launcher gave this process a GPU
    (SUITE_DEVICE=cuda) that it does not see, and where two ranks have one GPU.
    """
    rank, local_rank, world_size = _numbers(wanted)
    gpu = torch.cuda.is_available()
    if os.environ.get("SUITE_DEVICE") == "cuda" and not gpu:
        raise SuiteError(f"no CUDA-capable device is visible on {platform.node()}: {_reason()}")
    device = CPU
    if gpu:
        device = torch.device("cuda", _gpu_of(local_rank))
        torch.cuda.set_device(device)
        _same_bits_each_time()
    else:
        keep_freed_memory()
    if world_size == 1:
        return Ranks(0, local_rank, 1, device)
    _check_address()
    distributed.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None)
    nodes = world_size // (_number("LOCAL_WORLD_SIZE") or world_size)
    ranks = Ranks(rank, local_rank, world_size, device, nodes)
    if gpu:
        _check_own_gpu(ranks)
    return ranks


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of mallopt, in glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Use the memory of freed tensors for new ones. glibc gives every tensor above 32 MB back to the system, and each
    new one costs its page faults again: 40 % of an evaluation of ResNet-50 (docs/experiments.md). Does nothing where
    the environment says how malloc works, or without glibc."""
    is_configured = any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt and not is_configured:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)  # never


def give_back_freed_memory() -> None:
    """Give what is kept of freed memory back to the system: after a step that held much of it, the next one asks for
    tensors of other sizes, which do not fit between what is still held. Does nothing without glibc."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim:
        malloc_trim(0)


LEFT = "another launcher may have left it: unset RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE"


def _numbers(wanted: int | None) -> tuple[int, int, int]:
    """(rank, local rank, world size). Where one rank is `wanted` and torchrun has not started this process, what the
    variables say is another job's."""
    if wanted == 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 0, 1
    rank, local_rank, world_size = (_number(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    world_size = world_size or 1
    if rank >= world_size:
        raise SuiteError(f"RANK is {rank}, and WORLD_SIZE {world_size}; {LEFT}")
    if wanted is not None:
        Ranks(rank, local_rank, world_size).check(wanted)
    return rank, local_rank, world_size


def _number(name: str) -> int:
    """A variable of torchrun's; 0 where it is not set, or empty."""
    value = os.environ.get(name) or "0"
    if not value.isdecimal():
        raise SuiteError(f"{name} is {value!r}, which is no whole number; {LEFT}")
    return int(value)


def _check_address() -> None:
    """Raise SuiteError where the ranks have no address to meet at, or one that this machine cannot find."""
    address, port = (os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    if not address or not port:
        raise SuiteError(
            "MASTER_ADDR and MASTER_PORT are not set, where ranks meet; start them with torchrun"
        )
    try:
        socket.getaddrinfo(address, port)
    except OSError as error:
        raise SuiteError(
            f"the ranks meet at {address}, which {platform.node()} cannot resolve ({error}); put the name into "
            f"/etc/hosts or the name server, or set MASTER_ADDR to an IP address"
        ) from None


def _gpu_of(local_rank: int) -> int:
    """The number, among those that this process sees, of the GPU that is its own.

    SLURM may bind GPUs to tasks (--gpus-per-task, --gpu-bind): then each rank sees its own alone, as number 0.
    """
    count = torch.cuda.device_count()
    if local_rank >= count and "SLURM_PROCID" not in os.environ:
        raise SuiteError(
            f"rank {local_rank} of this machine has no GPU, of which {count} are visible; use as many ranks as GPUs"
        )
    return local_rank % count


def _check_own_gpu(ranks: Ranks) -> None:
    """Raise SuiteError where two ranks compute on one GPU."""
    uuid = str(torch.cuda.get_device_properties(ranks.device).uuid)
    try:
        every = ranks.each(f"{uuid} of {platform.node()}")
    except distributed.DistBackendError as error:  # NCCL says so itself
        if "Duplicate GPU" not in str(error):
            raise
        every = [uuid, uuid]
    if twice := next((one for one in every if every.count(one) > 1), None):
        raise SuiteError(
            f"two ranks have one GPU, {twice}; use as many ranks as GPUs (ranks_per_node in the cluster file)"
        )


def _reason() -> str:
    """Why torch sees no GPU, in its own words."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as error:
        return first_line(error)
    return "torch says nothing"


def _same_bits_each_time() -> None:
    """A run that was killed goes on to the same weights: kernels are those that give the same bits each time, and
    float32 is float32. New tensors are not filled, which costs as many kernels as there are layers."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Inductor then chooses no kernel by timing it. It reads this when it is imported.
    os.environ.setdefault("TORCHINDUCTOR_DETERMINISTIC", "1")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
