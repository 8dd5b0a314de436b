"""Which settings of learned rounding lose least, on training images that are held out: never on the test images.

The public ResNet-20, `best` with other learning rates, with biases learned or not, and with its correction of biases
left out. Calibration as in a sweep: 1,024 training images of draw 0; held out are the 2,000 that the same draw would
take next. The float network is nearly perfect on both, so the Kullback-Leibler divergence of the outputs from the
float ones decides, not top-1. A line of JSON for each, appended to --out; what stands there is not run again.

    python -m benchmarks.reconstruction_settings --weights resnet20-12fca82f.th --data DIR --out settings.jsonl
    python -m benchmarks.reconstruction_settings --out settings.jsonl --table settings.md    # runs nothing
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.data import datasets
from suite.data.images import Images, drawn
from suite.methods.best import Best
from suite.networks.checkpoint_files import load_weights
from suite.recipe import Calibration, Dataset, Network
from suite.recipe.settings import IMAGENET_MEAN, IMAGENET_STD
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized
from suite.steps import CorrectBias, Reconstruct

HELD_OUT = 2000
BATCH = 250


@dataclass(frozen=True)
class Setting:
    """What is varied. `widths` of weights and inputs; `first_last` that of the first and the last layer, None as the
    rest."""

    widths: tuple[int, int]
    first_last: int | None
    lr: float
    bias_lr: float
    iterations: int
    drop: float
    bfloat16: bool

    def record(self) -> dict[str, Any]:
        """As a line of the file has it."""
        return {**vars(self), "widths": list(self.widths)}


def held_out(images: Images, calibration: Calibration, count: int = HELD_OUT) -> Tensor:
    """`count` normalized training images that `calibration` does not draw."""
    more = replace(calibration, images=calibration.images + count)
    index = drawn(more, len(images))[calibration.images :]
    return images.normalized(images.pixels[index])


@torch.no_grad()
def outputs(model: nn.Module, images: Tensor) -> Tensor:
    """The logits of `model`, [n, classes]."""
    return torch.cat([model(some) for some in torch.split(images, BATCH)])


def scores(model: nn.Module, network: nn.Module, images: Tensor) -> dict[str, float]:
    """How far the model's outputs are from those of the float `network`: mean divergence in nats, and the part of
    `images`, in percent, that it puts into the same class."""
    found, wanted = outputs(model.eval(), images), outputs(network.eval(), images)
    divergence = F.kl_div(found.log_softmax(1), wanted.log_softmax(1), reduction="batchmean", log_target=True)
    same = (found.argmax(1) == wanted.argmax(1)).double().mean()
    return {"divergence": round(float(divergence), 5), "same_class": round(100 * float(same), 2)}


def tried(setting: Setting, network: nn.Module, train: Images) -> list[dict[str, Any]]:
    """The records of one setting: without the correction of biases, and with it."""
    calibration = Calibration()
    feed = InMemoryFeed(network, list(train.calibration_batches(calibration)))
    method = Best(
        *setting.widths, setting.first_last, setting.iterations, drop=setting.drop, bfloat16=setting.bfloat16
    )
    steps = [
        replace(step, lr=setting.lr, bias_lr=setting.bias_lr) if isinstance(step, Reconstruct) else step
        for step in method.steps()
        if not isinstance(step, CorrectBias)
    ]
    began, images = time.process_time(), held_out(train, calibration)
    model = quantized(steps, feed)
    seconds, found = time.process_time() - began, []
    for corrected in (False, True):
        if corrected:
            model = CorrectBias(calibration=calibration).apply(model, feed)
        record = {**setting.record(), "corrected": corrected, **scores(model, network, images)}
        found.append({**record, "cpu_seconds": round(seconds, 1), "torch": torch.__version__})
    return found


COLUMNS = {
    "first_last": "first and last layer",
    "lr": "learning rate",
    "bias_lr": "of biases",
    "iterations": "iterations",
    "drop": "dropped",
    "bfloat16": "bfloat16",
    "corrected": "biases corrected",
    "divergence": "divergence",
    "same_class": "same class, %",
    "cpu_seconds": "CPU seconds",
}


def table(records: list[dict[str, Any]]) -> str:
    """All of them in Markdown, the least divergence of each width first."""
    order = sorted(records, key=lambda one: ([-bits for bits in one["widths"]], one["divergence"]))
    lines = [
        f"Chosen by the divergence of the outputs from the float ones, on {HELD_OUT:,} training images that are held "
        "out; the test images chose nothing. One draw of 1,024 other training images, one thread.",
        "",
        f"| widths | {' | '.join(COLUMNS.values())} |",
        f"| --- |{' ---: |' * len(COLUMNS)}",
    ]
    for one in order:
        words = {True: "yes", False: "no", None: "as the rest"}
        cells = [
            str(words[one[name]]) if isinstance(one[name], bool | None) else str(one[name])
            for name in COLUMNS
        ]
        lines.append(f"| W{one['widths'][0]}A{one['widths'][1]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Try each, the first widths first, or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, help="the public ResNet-20")
    parser.add_argument("--data", type=Path, help="the folder with CIFAR-10")
    parser.add_argument("--table", type=Path, help="write what --out holds as Markdown, and run nothing")
    parser.add_argument("--out", type=Path, required=True, help="a file of JSON lines")
    parser.add_argument("--widths", default="4/4,3/3,2/2,2/4", help="of weights and inputs")
    parser.add_argument(
        "--first-last", type=int, default=8, help="bits of the first and last layer; 0: as the rest"
    )
    parser.add_argument("--lr", default="0.03,0.1", help="of the rounding")
    parser.add_argument("--bias-lr", default="0.01", help="of the biases; 0 learns none")
    parser.add_argument("--iterations", default="1000", help="a block")
    parser.add_argument("--drop", default="0.5", help="the part of the inputs' elements left float")
    parser.add_argument("--bfloat16", action="store_true", help="layers multiply in bfloat16 while learning")
    given = parser.parse_args()
    if given.table:
        given.table.write_text(table([json.loads(line) for line in given.out.read_text().splitlines()]))
        return
    torch.set_num_threads(1)
    network = load_weights(Network("resnet20", "A"), given.weights).eval()
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train = datasets.load(
        Dataset("cifar10", IMAGENET_MEAN, IMAGENET_STD), "train", given.data, torch.device("cpu")
    )
    assert isinstance(train, Images)
    given.out.touch()
    widths = [(int(w), int(a)) for w, a in (pair.split("/") for pair in given.widths.split(","))]
    rates = [[float(value) for value in text.split(",")] for text in (given.bias_lr, given.drop, given.lr)]
    iterations = [int(value) for value in given.iterations.split(",")]
    for count, bias_lr, drop, pair, lr in itertools.product(iterations, rates[0], rates[1], widths, rates[2]):
        setting = Setting(pair, given.first_last or None, lr, bias_lr, count, drop, given.bfloat16)
        done = [json.loads(line) for line in given.out.read_text().splitlines()]
        if any(setting.record().items() <= record.items() for record in done):
            continue
        for record in tried(setting, network, train):
            print(json.dumps(record), flush=True)
            with given.out.open("a") as file:
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
