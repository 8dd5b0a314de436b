"""top1, top5 and loss of a model on a split: integer counts summed over ranks, every image once."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.data.image_folder import Streamed
from suite.data.images import Images
from suite.ranks import Ranks


@dataclass(frozen=True)
class Score:
    """`top1` and `top5` in percent of `images`, `loss` the mean cross entropy in nats.

    `correct` holds for each image, in the data set's order, whether top 1 was right: bool [images], for comparing two
    models image by image. `predicted` is each image's class of top 1, int64 [images], -1 where every logit is NaN.
    """

    top1: float
    top5: float
    loss: float
    images: int
    correct: Tensor
    predicted: Tensor

    @property
    def packed(self) -> str:
        """`correct` as base64 of its bits, eight to a byte, the first image in the highest."""
        return base64.b64encode(np.packbits(self.correct.cpu().numpy()).tobytes()).decode()


def evaluate(
    model: nn.Module, images: Images | Streamed, ranks: Ranks, batch: int = 500
) -> Iterator[int | Score]:
    """Yields the number of images done after each batch, and the Score last.

    Right at top k: fewer than k classes have a larger logit, or an equal one and a lower index (coarse grids make
    ties). A NaN logit is wrong.
    """
    model.eval()
    seen = torch.zeros(2, len(images), dtype=torch.int64, device=ranks.device)
    loss = torch.zeros((), dtype=torch.float64, device=ranks.device)
    mine = seen[:, ranks.rank :: ranks.world_size]
    done = 0
    for x, labels in images.share(ranks, batch):
        with torch.no_grad():  # not inference_mode: what moves while evaluating goes on into the training
            logits = model(x).float()
            rank = _rank(logits, labels)
            mine[0, done : done + len(labels)] = rank
            mine[1, done : done + len(labels)] = _predicted(logits, labels, rank < 1)
            loss += F.cross_entropy(logits, labels, reduction="sum").double()
        done += len(labels)
        yield done * ranks.world_size
    ranking, predicted = ranks.sum(seen)
    count = len(images)
    top1, top5 = (100 * int((ranking < k).sum()) / count for k in (1, 5))
    yield Score(top1, top5, float(ranks.sum(loss)) / count, count, ranking < 1, predicted)


def _rank(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the right one, int64 [n]; all of them where its logit is NaN."""
    own = logits.gather(1, labels[:, None])
    earlier = torch.arange(logits.shape[1], device=labels.device) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & earlier)).sum(1)
    return torch.where(own[:, 0].isnan(), logits.shape[1], rank)


def _predicted(logits: Tensor, labels: Tensor, right: Tensor) -> Tensor:
    """The class of the largest logit, of equal ones the first, int64 [n]; -1 where all are NaN."""
    best = logits.masked_fill(logits.isnan(), -torch.inf).argmax(1)
    best = torch.where(right, labels, best)  # whatever else is NaN
    return best.masked_fill(logits.gather(1, best[:, None])[:, 0].isnan(), -1)
