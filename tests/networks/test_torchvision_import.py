"""torchvision's schemas are named for a torch that was built without a GPU, and for no other."""

from __future__ import annotations

import pytest

from suite.networks.torchvision_import import lacks_schemas


@pytest.mark.parametrize(
    ("cuda", "hip", "has_nms", "expected"),
    [
        (None, None, False, True),
        (None, None, True, False),
        ("13.0", None, False, False),  # PyPI's usual build, whether a GPU is visible or not
        (None, "7.0", False, False),
    ],
)
def test_only_a_torch_built_without_a_gpu_lacks_the_schemas(
    cuda: str | None, hip: str | None, has_nms: bool, expected: bool
) -> None:
    assert lacks_schemas(cuda, hip, has_nms) == expected
