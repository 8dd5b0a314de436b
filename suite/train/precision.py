"""O0 to O3 with NVIDIA apex's meaning, native: which tensors are half, where the masters are, how the loss scales.

O0: all float32. O1: float32 weights, autocast forward. O2: half weights and inputs but for BatchNorm, float32
outputs and float32 master weights. O3: everything half, no masters. With float16 in O1 and O2 the loss is scaled
dynamically: 65536 at first, doubled after 2000 good steps, halved and the step skipped on an overflow.
bfloat16 has float32's exponents and no loss scale. (apex.amp itself left apex with its commit cb65b8ed of 2025-05-08.)
On a CPU for which torch has no kernels for bfloat16, it is multiplied as `bfloat16.py` says.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from suite.learned.quantizer import Learned
from suite.networks.graph import BATCH_NORM
from suite.recipe import Precision
from suite.train.bfloat16 import products

HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Mixed:
    """A float32 `model` and the copy that works for it at a precision.

    The model holds the masters and is what training leaves behind. `working` does forward and backward: in O0 and
    O1 with the model's own weights, in O2 and O3 with half ones. Nothing here waits for the device.
    """

    def __init__(
        self,
        model: nn.Module,
        precision: Precision,
        make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    ) -> None:
        self.model, self.precision = model, precision
        self.half = HALF[precision.dtype]
        shared = {id(parameter): parameter for parameter in _shared(model, precision.level)}
        self.working = copy.deepcopy(model, shared)
        if precision.level in ("O2", "O3"):
            _cast(self.working, self.half, precision.level == "O3")
        pairs = zip(model.parameters(), self.working.parameters(), strict=True)
        self._copied = [(m, w) for m, w in pairs if m is not w] if precision.level == "O2" else []
        self.stepped = self.working if precision.level == "O3" else model
        self.optimizer = make_optimizer(self.stepped.parameters())
        self.scales = precision.dtype == "float16" and precision.level in ("O1", "O2")
        device = next(model.parameters()).device
        self._products = (
            contextlib.nullcontext if precision.level == "O0" else partial(products, device, self.half)
        )
        self._scale = torch.full((1,), 65536.0 if self.scales else 1.0, device=device)
        self._good_steps = torch.zeros(1, dtype=torch.int32, device=device)
        self._skipped_steps = torch.zeros(1, device=device)
        self._overflow = torch.zeros(1, device=device)

    @property
    def loss_scale(self) -> float:
        """What the loss is multiplied by. Waits for the device."""
        return float(self._scale)

    @property
    def skipped_steps(self) -> int:
        """How many steps an overflow skipped so far. Waits for the device."""
        return int(self._skipped_steps)

    def forward(self, working: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """`working(x)` (which may be wrapped for several ranks) at this precision; float32 logits."""
        if self.precision.level in ("O2", "O3"):
            x = x.to(self.half)
        autocast = (
            torch.autocast(x.device.type, dtype=self.half)
            if self.precision.level == "O1"
            else contextlib.nullcontext()
        )
        with autocast, self._products():
            result: Tensor = working(x)
        return result.float()

    def step(self, loss: Tensor) -> Tensor:
        """Backward from the scaled loss and one optimizer step on the masters.

        Returns whether an overflow skipped the step: 1.0 or 0.0, float32 [1], on the device.
        """
        with self._products():
            torch.autograd.backward(loss * self._scale.squeeze() if self.scales else loss)
        for master, worker in self._copied:
            master.grad = None if worker.grad is None else worker.grad.float()
        if self.scales:
            self._scaled_step()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.working.zero_grad(set_to_none=True)
        if self.precision.level == "O2":
            self._copy_masters()
        return self._overflow

    def _scaled_step(self) -> None:
        """Unscale, step unless a gradient is inf or NaN, and move the scale, as torch.amp.GradScaler does."""
        grads = [p.grad for p in self.stepped.parameters() if p.grad is not None]
        self._overflow.zero_()
        torch._amp_foreach_non_finite_check_and_unscale_(grads, self._overflow, self._scale.reciprocal())
        if getattr(self.optimizer, "_step_supports_amp_scaling", False):
            self.optimizer.grad_scale, self.optimizer.found_inf = None, self._overflow  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not self._overflow.item():  # an optimizer that cannot skip on the device: apex's
            self.optimizer.step()
        torch._amp_update_scale_(self._scale, self._good_steps, self._overflow, 2.0, 0.5, 2000)
        self._skipped_steps += self._overflow

    @torch.no_grad()
    def _copy_masters(self) -> None:
        # All are half: of a list of several dtypes CUDA's fast path wrote wrong values (PyTorch issue 173383).
        torch._foreach_copy_([worker for _, worker in self._copied], [master for master, _ in self._copied])

    @torch.no_grad()
    def update_model(self) -> nn.Module:
        """The float32 model with all that training changed so far, BatchNorm statistics and observers included."""
        if self.precision.level == "O3":
            torch._foreach_copy_(list(self.model.parameters()), list(self.working.parameters()))
        _copy_buffers(self.working, self.model)
        return self.model

    def update_working(self) -> None:
        """Take the model's buffers, which evaluating may have moved."""
        _copy_buffers(self.model, self.working)

    def state(self) -> dict[str, Any]:
        """What, besides the model, a training goes on from."""
        kept = {name: getattr(self, name).cpu() for name in _KEPT}
        return {"optimizer": self.optimizer.state_dict(), **kept}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        for name in _KEPT:
            getattr(self, name).copy_(state[name])


_KEPT = ("_scale", "_good_steps", "_skipped_steps")


@torch.no_grad()
def _copy_buffers(source: nn.Module, target: nn.Module) -> None:
    """Statistics and ranges, in the target's dtype; a range may have got its shape only while training."""
    modules = dict(source.named_modules())
    for name, module in target.named_modules():
        for key, old in module.named_buffers(recurse=False):
            new = getattr(modules[name], key)
            if old.shape == new.shape:
                old.copy_(new)
            else:
                setattr(module, key, new.detach().to(old.dtype, copy=True))


def _shared(model: nn.Module, level: str) -> list[nn.Parameter]:
    """The parameters that the working copy has in common with the model: in O2 those that stay float32, of BatchNorm
    and what quantizers learn."""
    if level == "O3":
        return []
    if level == "O2":
        kept = (module for module in model.modules() if isinstance(module, BATCH_NORM))
        of_norms = [parameter for module in kept for parameter in module.parameters(recurse=False)]
        return of_norms + [parameter for parameter in model.parameters() if isinstance(parameter, Learned)]
    return list(model.parameters())


def _cast(model: nn.Module, half: torch.dtype, batch_norm_too: bool) -> nn.Module:
    for module in model.modules():
        if isinstance(module, BATCH_NORM) and not batch_norm_too:
            continue
        for parameter in module.parameters(recurse=False):
            if not isinstance(parameter, Learned):
                parameter.data = parameter.data.to(half)
        if isinstance(module, BATCH_NORM):
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.is_floating_point():
                    setattr(module, name, buffer.to(half))
    return model
