"""Pretend that some CPU tensors lie on a GPU: real values, real autograd, and an error where CUDA would raise one.

Why not FakeTensorMode: it has no values, so a calibration, an evaluation or a resume cannot run under it, and it stops
at the first `item()`. Here every tensor stays an ordinary CPU tensor and only its *storage* is tagged with the device
that it pretends to be on, so that parameters, `.data =`, deepcopy, views, hooks, autograd and torch.save work as ever.

Two modes together:

- a TorchFunctionMode sees what Python asks for: `.to("cuda")`, `.cpu()`, `device=...`, `.device`, `.is_cuda`,
  `.numpy()`, generators of the wrong device, pinned memory;
- a TorchDispatchMode sees each kernel that would be launched: it raises where CUDA and CPU tensors meet (but for what
  CUDA allows: CPU scalars in arithmetic, CPU indices, copy_), and notes what makes the host wait for the device.

What C++ makes on its own (gradients' zeros, buckets of DDP) has no tag and goes with everything: there are no false
alarms, and what only a real device shows stays unseen: kernels' own limits, dtypes, memory, speed.

    with pretend_cuda() as gpu:
        ...                       # torch.cuda.is_available() is True, tensors go to "cuda:0" and come back
    gpu.waits                     # Counter of (what, file:line)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fakes.pretended_gpu import CPU, FACTORIES, Gpu
from fakes.pretended_kernels import Below


def _kind(func: Any) -> tuple[str, str]:
    """("get"/"set"/"call", name)."""
    name = getattr(func, "__name__", "")
    owner = getattr(func, "__self__", None)
    if name in ("__get__", "__set__") and owner is not None:
        return ("get" if name == "__get__" else "set"), getattr(owner, "__name__", "")
    return "call", name


class _Above(TorchFunctionMode):
    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self.gpu, self.tags = gpu, gpu.tags

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        how, name = _kind(func)
        first = args[0] if args else None
        on_gpu = isinstance(first, Tensor) and self.tags.get(first) == "cuda"
        if how == "get":
            if name == "device" and on_gpu:
                return self.gpu.device
            if name == "is_cuda":
                return on_gpu
            if name == "is_cpu" and on_gpu:
                return False
            return func(*args, **kwargs)
        if how == "set":
            return func(*args, **kwargs)
        if isinstance(first, Tensor):
            if name == "to":
                return self._to(func, args, kwargs)
            if name == "cuda":
                return self._moved(first, self.gpu.device, bool(kwargs.get("non_blocking")))
            if name == "cpu":
                return self._moved(first, CPU, False)
            if name in ("numpy", "__array__") and on_gpu:
                self.gpu.refuse("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")
            if name == "tolist" and on_gpu:
                self.gpu.wait("tolist: device to host")
            if name == "get_device":
                return self.gpu.device.index if on_gpu else -1
            if name == "pin_memory":
                if on_gpu:
                    self.gpu.refuse("cannot pin a cuda tensor; only dense CPU tensors can be pinned")
                return first.clone()
            if name == "is_pinned":
                return False
            if name in ("data_ptr", "untyped_storage"):
                return func(*args, **kwargs)
            if name == "__deepcopy__":  # copies the storage itself
                copied = func(*args, **kwargs)
                self.tags.put(copied, self.tags.get(first))
                return copied
        return self._call(func, name, args, kwargs)

    def _to(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        x, rest = args[0], list(args[1:])
        device: Any = kwargs.pop("device", None)
        non_blocking = bool(kwargs.pop("non_blocking", False))
        if rest and isinstance(rest[0], Tensor):
            like = rest.pop(0)
            tag = self.tags.get(like)
            device, kwargs["dtype"] = (
                (self.gpu.device if tag == "cuda" else CPU),
                kwargs.get("dtype", like.dtype),
            )
        elif rest and isinstance(rest[0], (torch.device, str, int)) and not isinstance(rest[0], bool):
            device = rest.pop(0)
        elif rest and rest[0] is None:
            rest.pop(0)
        if rest and isinstance(rest[0], torch.dtype):
            kwargs["dtype"] = rest.pop(0)
        if rest and isinstance(rest[0], bool):
            non_blocking = rest.pop(0)
        if rest and isinstance(rest[0], bool):
            kwargs["copy"] = rest.pop(0)
        device = None if device is None else torch.device(device)
        if device is not None and device.type == "cuda":
            self._check_index(device)
        tag = self.tags.get(x)
        target = tag if device is None else ("cuda" if device.type == "cuda" else "cpu")
        if device is not None and (tag or "cpu") != target:
            x = self._moved(x, device, non_blocking)
        result = x.to(**kwargs) if kwargs else x  # this mode is off in here
        if result.untyped_storage()._cdata != x.untyped_storage()._cdata:
            self.tags.put(result, target)
        return result

    def _check_index(self, device: torch.device) -> None:
        if (device.index or 0) >= self.gpu.devices:
            self.gpu.refuse(f"CUDA error: invalid device ordinal {device}")

    def _moved(self, x: Tensor, device: torch.device, non_blocking: bool) -> Tensor:
        source = self.tags.get(x) or "cpu"
        if source == device.type:
            return x
        if not (non_blocking and device.type == "cuda"):
            self.gpu.wait("host to device" if device.type == "cuda" else "device to host")
        result = x.clone()
        self.tags.put(result, device.type)
        return result

    def _call(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        asked = "device" in kwargs
        device = kwargs.pop("device", None)
        device = None if device is None else torch.device(device)
        if device is not None and device.type == "cuda":
            self._check_index(device)
            generator = kwargs.get("generator")
            if isinstance(generator, torch.Generator) and generator.device.type == "cpu":
                self.gpu.refuse("Expected a 'cuda' device type for generator but found 'cpu'")
            if name in ("tensor", "as_tensor"):
                self.gpu.wait("host to device")
        elif device is not None and asked:
            kwargs["device"] = device
        if name == "pin_memory":
            kwargs.pop("pin_memory", None)
        result = func(*args, **kwargs)
        tag: str | None = None
        if device is not None:
            tag = "cuda" if device.type == "cuda" else "cpu"
        elif name in FACTORIES and not any(isinstance(a, Tensor) for a in args):
            tag = "cpu"
        elif name == "new_tensor" and isinstance(args[0], Tensor):
            tag = self.tags.get(args[0])
            if tag == "cuda":
                self.gpu.wait("host to device")
        if tag is not None and isinstance(result, Tensor):
            self.tags.put(result, tag)
        return result


def _of_torch_cuda(gpu: Gpu) -> dict[str, Any]:
    """What stands in the place of functions of torch.cuda."""

    def set_rng_state(state: Tensor, device: Any = None) -> None:
        if gpu.tags.get(state) == "cuda":
            gpu.refuse("set_rng_state: RNG state must be a torch.ByteTensor on the CPU")
        gpu.rng = state.clone()

    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: gpu.devices,
        "current_device": lambda: gpu.device.index,
        "set_device": lambda device: None,
        "get_device_name": lambda device=None: "Pretended GPU",
        "synchronize": lambda device=None: gpu.wait("torch.cuda.synchronize"),
        "get_rng_state": lambda device=None: gpu.rng.clone(),
        "set_rng_state": set_rng_state,
        "get_device_capability": lambda device=None: (9, 0),
        "_lazy_init": lambda: None,
        "empty_cache": lambda: None,
    }


@contextlib.contextmanager
def pretend_cuda(strict: bool = True, devices: int = 1, index: int = 0) -> Iterator[Gpu]:
    """While this lasts, torch has a CUDA device that is none."""
    gpu = Gpu(strict, devices, index)

    grouped = torch._C._group_tensors_by_device_and_dtype

    def group(lists: Any, with_indices: bool = False) -> Any:
        """torch's optimizers ask C++ where tensors lie."""
        found = {}
        for (device, dtype), content in grouped(lists, with_indices).items():
            first = next(x for tensors in content[0] for x in tensors if x is not None)
            found[gpu.device if gpu.tags.get(first) == "cuda" else device, dtype] = content
        return found

    class Autocast(torch.amp.autocast_mode.autocast):
        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    with contextlib.ExitStack() as stack:
        for name, instead in _of_torch_cuda(gpu).items():
            stack.enter_context(mock.patch.object(torch.cuda, name, instead))
        stack.enter_context(mock.patch.object(torch, "autocast", Autocast))
        stack.enter_context(mock.patch.object(torch._C, "_group_tensors_by_device_and_dtype", group))
        accelerator = {
            "is_available": lambda: True,
            "current_accelerator": lambda check_available=False: torch.device("cuda"),
            "current_device_index": lambda: index,
            "set_device_index": lambda device: None,
        }
        for name, instead in accelerator.items():
            stack.enter_context(mock.patch.object(torch.accelerator, name, instead))
        stack.enter_context(
            mock.patch("torch.utils.data._utils.pin_memory.pin_memory", lambda data, device=None: data)
        )
        check = "_accelerator_graph_capture_health_check"  # Adam's, which asks for a stream
        stack.enter_context(mock.patch.object(torch.optim.Optimizer, check, lambda self: None))
        before = torch.are_deterministic_algorithms_enabled()
        stack.callback(torch.use_deterministic_algorithms, before)
        stack.enter_context(Below(gpu))
        stack.enter_context(_Above(gpu))
        yield gpu
