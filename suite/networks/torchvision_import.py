"""torchvision, importable also beside a torch without CUDA.

torchvision's wheel is built for CUDA and its import looks up two operators that a CPU-only torch lacks
(`operator torchvision::nms does not exist`). Naming their schemas first is enough: nothing here calls them.
"""

import torch

_library = None
if not hasattr(torch.ops.torchvision, "nms") and not torch.cuda.is_available():
    _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        _library.define(schema)  # type: ignore[no-untyped-call]

import torchvision  # noqa: E402

__all__ = ["torchvision"]
