"""What a pretended GPU sees of each kernel that would be launched: where its tensors lie, and what makes a wait."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fakes.pretended_gpu import SCALARS_MAY_BE_ON_THE_CPU, VIEWS, WAITS, Gpu, where


class Below(TorchDispatchMode):
    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self.gpu, self.tags = gpu, gpu.tags

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._overloadpacket.__name__
        flat = _tensors((*args, *kwargs.values()))
        tags = [self.tags.get(x) for x in flat]
        on_gpu, on_cpu = "cuda" in tags, "cpu" in tags
        if on_gpu:
            self.gpu.launches[str(func)] += 1
            if self.gpu.locates and name not in VIEWS:
                self.gpu.launched_at[name, where()] += 1
            if on_cpu:
                self._mixed(name, func, args, kwargs, flat, tags)
            self._waits(name, args, kwargs)
            if name == "_foreach_copy_" and len({x.dtype for x in args[0]}) > 1:
                self.gpu.refuse(
                    "_foreach_copy_ over several dtypes, to which older torch wrote wrong values on CUDA"
                )
        result = func(*args, **kwargs)
        tag = "cuda" if on_gpu else "cpu" if on_cpu else None
        if name == "copy_" or name == "_foreach_copy_":
            return result
        if name == "index" and self.tags.get(args[0]) is not None:
            tag = self.tags.get(args[0])
        if tag is None:
            return result
        known = {x.untyped_storage()._cdata for x in flat if x.layout is torch.strided and not _opaque(x)}
        for out in _tensors((result,)):
            if not _opaque(out) and out.untyped_storage()._cdata not in known:
                self.tags.put(out, tag)
        return result

    def _mixed(
        self, name: str, func: Any, args: Any, kwargs: Any, flat: list[Tensor], tags: list[Any]
    ) -> None:
        if name.startswith("c10d") or func.namespace == "c10d":
            self.gpu.refuse("No backend type associated with device type cpu (NCCL)")
            return
        if name in ("copy_", "_foreach_copy_"):
            if not (len(args) > 2 and args[2]):
                self.gpu.wait(f"{name} between host and device")
            return
        if name == "set_data":
            return
        if name in ("index", "index_put_", "index_put", "_index_put_impl_"):
            if self.tags.get(args[0]) != "cuda":
                self.gpu.refuse(
                    "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
                )
            for index in args[1]:
                if isinstance(index, Tensor) and self.tags.get(index) == "cpu":
                    self.gpu.wait("index from the host: host to device")
            values = args[2] if len(args) > 2 and isinstance(args[2], Tensor) else None
            if values is not None and self.tags.get(values) == "cpu" and values.dim():
                self.gpu.refuse("index_put_: values on the CPU")
            return
        if name in SCALARS_MAY_BE_ON_THE_CPU and not (name.endswith("_") and tags[0] == "cpu"):
            scalars = [x.dim() == 0 for x, tag in zip(flat, tags, strict=True) if tag == "cpu"]
            many = {"where": 3, "index_put_": 9, "index_put": 9}.get(
                name, 1
            )  # "too many CPU scalars to non-CPU kernel"
            if all(scalars) and len(scalars) <= many:
                if name in ("where",):
                    self.gpu.wait("where with a CPU scalar: host to device")
                return
        shapes = [f"{tag or 'any'}{list(x.shape)}" for x, tag in zip(flat, tags, strict=True)]
        where_they_are = " ".join(shapes) if len(shapes) < 6 else f"{len(shapes)} tensors"
        self.gpu.refuse(f"{func}: tensors on cuda:0 and on cpu: {where_they_are}")

    def _waits(self, name: str, args: Any, kwargs: Any) -> None:
        if name in WAITS:
            self.gpu.wait(WAITS[name] or name)
        elif name in ("index", "index_put_", "index_put"):
            for index in args[1]:
                if isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8):
                    self.gpu.wait("boolean mask: how many are true")
        elif name == "histc":
            self.gpu.wait("histc")


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """Those in a kernel's words or result, which are nested in lists and tuples alone; torch's tree_flatten takes as
    long as all else here."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found


def _opaque(x: Tensor) -> bool:
    try:
        x.untyped_storage()
    except NotImplementedError:
        return True
    return False
