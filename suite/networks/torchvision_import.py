"""torchvision, importable also beside a torch without CUDA.

torchvision's wheel is built for CUDA and its import looks up two operators that a CPU-only torch lacks
(`operator torchvision::nms does not exist`). Naming their schemas first is enough: nothing here calls them.
"""

from __future__ import annotations

import torch


def lacks_schemas(cuda: str | None, hip: str | None, has_nms: bool) -> bool:
    """Whether the schemas have to be named: only for a torch built without CUDA and ROCm.

    cuda, hip: `torch.version`'s. One built with CUDA loads torchvision's library also where no GPU is visible, and
    that library names the schemas itself: a second time ends the process.
    """
    return cuda is None and hip is None and not has_nms


_library = None
if lacks_schemas(torch.version.cuda, torch.version.hip, hasattr(torch.ops.torchvision, "nms")):
    _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        _library.define(schema)  # type: ignore[no-untyped-call]

import torchvision  # noqa: E402

__all__ = ["torchvision"]
