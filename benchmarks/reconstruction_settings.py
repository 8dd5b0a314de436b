"""Which settings of learned rounding lose least, on training images that are held out: never on the test images.

The public ResNet-20, `best` with other learning rates, with biases learned or not, with its correction of biases left
out, and with what it does not do by default: inputs with zero points, scales of weights that learn, several crops of
each image, and a last part in which all steps and biases learn together. Calibration as in a sweep: 1,024 training
images of draw 0, or of --draw; held out are the 2,000 that the same draw would take next. The float network is nearly
perfect on both, so the Kullback-Leibler divergence of the outputs from the float ones decides, not top-1. A line of
JSON for each is appended to --out; what stands there is not run again.

    python -m benchmarks.reconstruction_settings --weights resnet20-12fca82f.th --data DIR --out settings.jsonl
    python -m benchmarks.reconstruction_settings --out settings.jsonl --table settings.md    # runs nothing
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.data import datasets
from suite.data.images import Images, drawn
from suite.methods.best import Best
from suite.networks.checkpoint_files import load_weights
from suite.recipe import Calibration, Dataset, Network, Sgd
from suite.recipe.settings import IMAGENET_MEAN, IMAGENET_STD
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized
from suite.steps import CorrectBias, Reconstruct

HELD_OUT = 2000
BATCH = 250


@dataclass(frozen=True)
class Setting:
    """What is varied. `widths` of weights and inputs; `first_last` that of the first and the last layer, None as the
    rest; `image_bits` that of the image, None as the first layer; `draw` of the calibration images."""

    widths: tuple[int, int]
    first_last: int | None
    lr: float
    bias_lr: float
    iterations: int
    drop: float
    bfloat16: bool
    zero_points: bool = False
    weight_step_lr: float = 0.0
    views: int = 0
    together: float = 0.0
    image_bits: int | None = None
    draw: int = 0

    def record(self) -> dict[str, Any]:
        """As a line of the file has it; what came later is only there where it is not as before."""
        usual = {item.name: item.default for item in fields(self)}
        own = {name: value for name, value in vars(self).items() if value != usual[name]}
        return {**own, "widths": list(self.widths)}


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


class Augmenting(InMemoryFeed):
    """A feed that also has the calibration images as a training sees them."""

    def __init__(self, network: nn.Module, train: Images, calibration: Calibration) -> None:
        super().__init__(network, list(train.calibration_batches(calibration)))
        self.train_images = train

    def views(self, calibration: Calibration, count: int) -> Iterator[Tensor]:
        """Crops of 4 more pixels on each side, half of them mirrored."""
        return self.train_images.views(Sgd(1, calibration.batch, 1.0), calibration, count)


def tried(setting: Setting, network: nn.Module, train: Images) -> list[dict[str, Any]]:
    """The records of one setting: without the correction of biases, and with it."""
    calibration = Calibration(seed=setting.draw)
    feed = Augmenting(network, train, calibration)
    of_method = (
        "iterations",
        "drop",
        "bfloat16",
        "zero_points",
        "weight_step_lr",
        "views",
        "together",
        "image_bits",
    )
    chosen = {name: getattr(setting, name) for name in of_method}
    method = Best(*setting.widths, setting.first_last, feed=calibration, corrected=False, **chosen)
    steps = [
        replace(step, lr=setting.lr, bias_lr=setting.bias_lr)
        if isinstance(step, Reconstruct) and step.unit == "block"
        else step
        for step in method.steps()
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
    "image_bits": "image",
    "lr": "learning rate",
    "bias_lr": "of biases",
    "iterations": "iterations",
    "drop": "dropped",
    "bfloat16": "bfloat16",
    "zero_points": "zero points",
    "weight_step_lr": "of weight scales",
    "views": "crops an image",
    "together": "part together",
    "draw": "draw",
    "corrected": "biases corrected",
    "divergence": "divergence",
    "same_class": "same class, %",
    "cpu_seconds": "CPU seconds",
}


LATER = {item.name: item.default for item in fields(Setting) if item.default is not MISSING}
"""What a line stands for that does not have it."""


def is_done(setting: Setting, records: list[dict[str, Any]]) -> bool:
    """Whether one of the `records` is of this setting."""
    whole = {**vars(setting), "widths": list(setting.widths)}
    return any(whole.items() <= {**LATER, **record}.items() for record in records)


def table(records: list[dict[str, Any]]) -> str:
    """In Markdown, the least divergence of each width and draw first: other draws hold out other images."""
    order = sorted(
        records,
        key=lambda one: ([-bits for bits in one["widths"]], one.get("draw", 0), one["divergence"]),
    )
    lines = [
        f"Chosen by the divergence of the outputs from the float ones, on {HELD_OUT:,} training images that are held "
        "out; the test images chose nothing. Draws of 1,024 other training images, one thread.",
        "",
        f"| widths | {' | '.join(COLUMNS.values())} |",
        f"| --- |{' ---: |' * len(COLUMNS)}",
    ]
    for one in order:
        words = {True: "yes", False: "no", None: "as the rest"}
        own = {**LATER, **one}
        if own["image_bits"] is None:
            own["image_bits"] = "as the first layer"
        values = [own.get(name) for name in COLUMNS]
        cells = [str(words[value]) if isinstance(value, bool | None) else str(value) for value in values]
        lines.append(f"| W{one['widths'][0]}A{one['widths'][1]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def options() -> argparse.Namespace:
    """What is asked for on the command line."""
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
    parser.add_argument(
        "--image-bits", type=int, help="bits of the image, 32 for float; otherwise as the first layer"
    )
    parser.add_argument("--draw", type=int, default=0, help="of the calibration images and of those held out")
    parser.add_argument("--lr", default="0.03,0.1", help="of the rounding")
    parser.add_argument("--bias-lr", default="0.01", help="of the biases; 0 learns none")
    parser.add_argument("--iterations", default="1000", help="a block")
    parser.add_argument("--drop", default="0.5", help="the part of the inputs' elements left float")
    parser.add_argument("--bfloat16", action="store_true", help="layers multiply in bfloat16 while learning")
    parser.add_argument("--zero-points", action="store_true", help="of inputs that may be negative")
    parser.add_argument("--weight-step-lr", default="0", help="of the scales of weights; 0 learns none")
    parser.add_argument("--views", default="0", help="crops of each calibration image; 0: the image as it is")
    parser.add_argument(
        "--together", default="0", help="part of the iterations for all steps and biases at once"
    )
    return parser.parse_args()


def main() -> None:
    """Try each, the first widths first, or write the table."""
    given = options()
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
    lists = given.lr, given.bias_lr, given.drop, given.weight_step_lr, given.together
    lrs, bias_lrs, drops, scale_lrs, parts = ([float(one) for one in text.split(",")] for text in lists)
    counts, views = ([int(one) for one in text.split(",")] for text in (given.iterations, given.views))
    first_last, low, zero_points = given.first_last or None, given.bfloat16, given.zero_points
    fixed = given.image_bits, given.draw
    for count, bias_lr, drop, scale_lr, copies, part, pair, lr in itertools.product(
        counts, bias_lrs, drops, scale_lrs, views, parts, widths, lrs
    ):
        varied = lr, bias_lr, count, drop, low, zero_points, scale_lr, copies, part
        setting = Setting(pair, first_last, *varied, *fixed)
        done = [json.loads(line) for line in given.out.read_text().splitlines()]
        if is_done(setting, done):
            continue
        for record in tried(setting, network, train):
            print(json.dumps(record), flush=True)
            with given.out.open("a") as file:
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
