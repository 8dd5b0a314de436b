"""Top-1, top-5 and loss are those of torch, and no image counts twice."""

from __future__ import annotations

import base64
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from suite.data.images import Images
from suite.ranks import Ranks
from suite.recipe import Dataset
from suite.train.evaluate import Score, evaluate


class Fixed(nn.Module):
    """Answers the logits it was given, in order."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits, self.done = logits, 0

    def forward(self, x: Tensor) -> Tensor:
        part = self.logits[self.done : self.done + len(x)]
        self.done += len(x)
        return part


def score(logits: Tensor, labels: Tensor) -> Score:
    images = Images(torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8), labels, Dataset("digits", size=4))
    *_, last = evaluate(Fixed(logits), images, Ranks(), batch=7)
    assert isinstance(last, Score)
    return last


@given(st.integers(0, 2**31), st.integers(1, 60))
def test_top1_top5_and_loss_equal_topk_and_cross_entropy(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 10, generator=generator)
    labels = torch.randint(0, 10, (count,), generator=generator)
    found = score(logits, labels)
    hits = logits.topk(5).indices == labels[:, None]
    assert found.top1 == pytest.approx(100 * hits[:, 0].double().mean().item())
    assert found.top5 == pytest.approx(100 * hits.any(1).double().mean().item())
    assert found.loss == pytest.approx(F.cross_entropy(logits.double(), labels).item(), rel=1e-5)
    assert found.images == count
    assert torch.equal(found.correct, hits[:, 0])
    unpacked = np.unpackbits(np.frombuffer(base64.b64decode(found.packed), dtype=np.uint8))[:count]
    assert unpacked.astype(bool).tolist() == hits[:, 0].tolist()


def test_equal_logits_and_nan_are_no_free_hits() -> None:
    labels = torch.arange(10)
    assert (score(torch.zeros(10, 10), labels).top1, score(torch.zeros(10, 10), labels).top5) == (10.0, 50.0)
    nothing = score(torch.full((10, 10), torch.nan), labels)
    assert (nothing.top1, nothing.top5) == (0.0, 0.0) and math.isnan(nothing.loss)
