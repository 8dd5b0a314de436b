"""Which process this is among those that run one stage: made once in the worker, passed down."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from suite.recipe.errors import SuiteError

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
                f"the stage is run by world_size {wanted}, but {self.world_size} ranks run it; "
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
        """`counts` summed over all ranks; the same tensor on each."""
        if self.world_size > 1:
            distributed.all_reduce(counts)
        return counts

    def max(self, values: Tensor) -> Tensor:
        """The largest of each of the `values` over all ranks; the same tensor on each."""
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
        """Part from the other ranks when all are here: one that ends while others still talk may abort them."""
        if self.world_size > 1:
            distributed.barrier()
            distributed.destroy_process_group()


def from_environment() -> Ranks:
    """Ranks as torchrun sets them (RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE); one rank without. Joins the
    process group.

    Raises SuiteError where the launcher gave this process a GPU (SUITE_DEVICE=cuda) that it does not see, and where
    more ranks of this node than it has GPUs ask for one each.
    """
    rank, local_rank, world_size = (int(os.environ.get(n, d)) for n, d in _VARIABLES.items())
    gpu = torch.cuda.is_available()
    if os.environ.get("SUITE_DEVICE") == "cuda" and not gpu:
        raise SuiteError(f"no CUDA-capable device is visible on {platform.node()}: {_reason()}")
    device = CPU
    if gpu:
        if local_rank >= torch.cuda.device_count():
            raise SuiteError(
                f"rank {local_rank} of this machine has no GPU, of which {torch.cuda.device_count()} are visible; "
                "use as many ranks as GPUs"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
        _same_bits_each_time()
    if world_size > 1:
        distributed.init_process_group("nccl" if gpu else "gloo")
    nodes = world_size // int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return Ranks(rank, local_rank, world_size, device, nodes)


def _reason() -> str:
    """Why torch sees no GPU, in its own words."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as error:
        return str(error).strip().splitlines()[0]
    return "torch says nothing"


def _same_bits_each_time() -> None:
    """A run that was killed goes on to the same weights: kernels are those that give the same bits each time, and
    float32 is float32. New tensors are not filled, which costs as many kernels as there are layers."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


_VARIABLES = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
