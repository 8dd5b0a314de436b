"""top1, top5 and loss of a model on a split: integer counts summed over ranks, every image once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.data import Images, share
from suite.ranks import Ranks


@dataclass(frozen=True)
class Score:
    """`top1` and `top5` in percent of `images`, `loss` the mean cross entropy in nats."""

    top1: float
    top5: float
    loss: float
    images: int


def evaluate(model: nn.Module, images: Images, ranks: Ranks, batch: int = 500) -> Iterator[int | Score]:
    """Yields the number of images done after each batch, and the Score last.

    Right at top k: fewer than k classes have a larger logit, or an equal one and a lower index (coarse grids make
    ties). A NaN logit is wrong.
    """
    model.eval()
    hits = torch.zeros(3, dtype=torch.int64, device=ranks.device)
    loss = torch.zeros((), dtype=torch.float64, device=ranks.device)
    with torch.inference_mode():
        done = 0
        for x, labels in share(images, ranks, batch):
            logits = model(x).float()
            hits += _hits(logits, labels)
            loss += F.cross_entropy(logits, labels, reduction="sum").double()
            done += len(labels)
            yield done * ranks.world_size
    top1, top5, count = (int(value) for value in ranks.sum(hits))
    yield Score(100 * top1 / count, 100 * top5 / count, float(ranks.sum(loss)) / count, count)


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    own = logits.gather(1, labels[:, None])
    earlier = torch.arange(logits.shape[1], device=labels.device) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & earlier)).sum(1)
    rank = torch.where(own[:, 0].isnan(), logits.shape[1], rank)
    return torch.stack([(rank < 1).sum(), (rank < 5).sum(), torch.tensor(len(labels), device=labels.device)])
