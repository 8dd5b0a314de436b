"""O0 to O3 with NVIDIA apex's meaning, native: which tensors are half, where the masters are, how the loss scales.

O0: all float32. O1: float32 weights, autocast forward. O2: half weights and inputs but for BatchNorm, float32
outputs and float32 master weights. O3: everything half, no masters. With float16 in O1 and O2 the loss is scaled
dynamically: 65536 at first, doubled after 2000 good steps, halved and the step skipped on an overflow.
bfloat16 has float32's exponents and no loss scale. (apex.amp itself left apex with its commit cb65b8ed of 2025-05-08.)
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from suite.recipe import Precision

HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Mixed:
    """A float32 `model` and the copy that works for it at a precision.

    The model holds the masters and is what training leaves behind. `working` does forward and backward: in O0 and
    O1 the model itself, in O2 and O3 a half copy. `step` returns False where an overflow skipped it.
    """

    def __init__(
        self,
        model: nn.Module,
        precision: Precision,
        make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    ) -> None:
        self.model, self.precision = model, precision
        self.half = HALF[precision.dtype]
        copies = precision.level in ("O2", "O3")
        self.working = _cast(copy.deepcopy(model), self.half, precision.level == "O3") if copies else model
        stepped = self.working if precision.level == "O3" else model
        self.optimizer = make_optimizer(stepped.parameters())
        scales = precision.dtype == "float16" and precision.level in ("O1", "O2")
        self.loss_scale = 65536.0 if scales else 1.0
        self.scales, self.good_steps, self.skipped_steps = scales, 0, 0

    def forward(self, working: nn.Module, x: Tensor) -> Tensor:
        """`working(x)` (which may be wrapped for several ranks) at this precision; float32 logits."""
        if self.precision.level in ("O2", "O3"):
            x = x.to(self.half)
        autocast = (
            torch.autocast(x.device.type, dtype=self.half)
            if self.precision.level == "O1"
            else contextlib.nullcontext()
        )
        with autocast:
            result: Tensor = working(x)
        return result.float()

    def step(self, loss: Tensor) -> bool:
        """Backward from the scaled loss and one optimizer step on the masters; False where it was skipped."""
        torch.autograd.backward(loss * self.loss_scale)
        if self.precision.level == "O2":
            for master, worker in zip(self.model.parameters(), self.working.parameters(), strict=True):
                master.grad = None if worker.grad is None else worker.grad.float()
        stepped = self.working if self.precision.level == "O3" else self.model
        good = True
        if self.scales:
            grads = [p.grad for p in stepped.parameters() if p.grad is not None]
            torch._foreach_mul_(grads, 1 / self.loss_scale)
            good = bool(torch.stack([torch.isfinite(grad).all() for grad in grads]).all())
            self._rescale(good)
        if good:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.working.zero_grad(set_to_none=True)
        if self.precision.level == "O2" and good:
            self._copy_masters()
        return good

    def _rescale(self, good: bool) -> None:
        self.good_steps = self.good_steps + 1 if good else 0
        if not good:
            self.loss_scale /= 2
            self.skipped_steps += 1
        elif self.good_steps == 2000:
            self.loss_scale *= 2
            self.good_steps = 0

    @torch.no_grad()
    def _copy_masters(self) -> None:
        torch._foreach_copy_(list(self.working.parameters()), list(self.model.parameters()))

    @torch.no_grad()
    def update_model(self) -> nn.Module:
        """The float32 model with all that training changed so far, BatchNorm statistics and observers included."""
        if self.working is not self.model:
            if self.precision.level == "O3":
                torch._foreach_copy_(list(self.model.parameters()), list(self.working.parameters()))
            self._copy_buffers()
        return self.model

    def _copy_buffers(self) -> None:
        workers = dict(self.working.named_modules())
        for name, module in self.model.named_modules():
            for key, buffer in workers[name].named_buffers(recurse=False):
                old = getattr(module, key)
                setattr(module, key, buffer.detach().to(old.dtype).clone())


def _cast(model: nn.Module, half: torch.dtype, batch_norm_too: bool) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not batch_norm_too:
            continue
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(half)
        if isinstance(module, nn.BatchNorm2d):
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.is_floating_point():
                    setattr(module, name, buffer.to(half))
    return model
