"""The command that says what a checkpoint file is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter
from rich import get_console
from torch import nn

from suite.data import datasets
from suite.networks import checkpoint_files, recognize
from suite.networks.channels_last import channels_last
from suite.networks.checkpoint_reading import read
from suite.ranks import Ranks, keep_freed_memory
from suite.recipe import CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD, Dataset, Network
from suite.recipe.errors import first_line, no_checkpoint
from suite.recipe.settings import CIFAR100_MEAN, CIFAR100_STD, RESNETS
from suite.recipe.words import counted
from suite.record import files
from suite.train.evaluate import Score, evaluate

NORMALIZATIONS = {
    "cifar10": {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "cifar10": (CIFAR10_MEAN, CIFAR10_STD)},
    "cifar100": {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "cifar100": (CIFAR100_MEAN, CIFAR100_STD)},
}
"""Those that networks for a data set are trained with."""

DATASETS = {10: "cifar10", 100: "cifar100"}
"""What a network of so many outputs is tried on."""

Model = Annotated[
    str,
    Parameter(
        help="try this network alone: one of the suite, torchvision/NAME, timm/NAME, or yours, my_net.py:build"
    ),
]


def inspect(
    file: Annotated[Path, Parameter(name="FILE", help="a file of torch.save, or .safetensors")],
    /,
    *,
    model: Model = "",
    data: Annotated[Path, Parameter(env_var="SUITE_DATA", help="folder of the data sets")] = Path("data"),
) -> int:
    """Say what a checkpoint file is: its weights, the networks of the suite or of torchvision that take them, and
    their accuracy on CIFAR-10 or CIFAR-100 where that lies in --data."""
    if not file.is_file():
        raise no_checkpoint(file)
    keep_freed_memory()
    content, notes = read(file), list[str]()
    state = checkpoint_files.weights_of(content, file, notes)
    count = sum(value.numel() for value in state.values() if value.is_floating_point())
    dtypes = ", ".join(sorted({str(v.dtype).removeprefix("torch.") for v in state.values() if v.dim()}))
    _say(f"{file}: {file.stat().st_size / 1e6:.1f} MB, SHA-256 {files.sha256(file)}")
    _say(f"{counted(len(state), 'tensor')} of {counted(count, 'number')}, {dtypes}")
    found = recognize.matches(content, file, model)
    if not found:
        shown = [f"{name} {list(value.shape)}" for name, value in state.items() if value.dim() > 1]
        _say(f"its weights: {', '.join(shown[:4])}, ... {', '.join(shown[4:][-2:])}")
        _say(
            "it fits no network of the suite or of torchvision; try yours with --model my_net.py:build, and give it "
            'to a sweep as Network("my_net.py:build"), docs/your-own.md'
        )
        return 1
    for network, fitted, understood in found:
        shortcut = f", shortcut {network.shortcut}" if network.name in RESNETS else ""
        _say(f"\nit is a {network.name}{shortcut}, {counted(network.classes, 'output')}")
        for note in understood:
            _say(f"  {note}")
        _say(f"  {_how_to_launch(file, network, model, _accuracies(network, fitted, data))}")
    return 0


def _say(text: str) -> None:
    get_console().print(text, soft_wrap=True, markup=False, highlight=False)


def _how_to_launch(file: Path, network: Network, given: str, normalization: str) -> str:
    """The command that quantizes it or, where no sweep of the suite has its data set, the line for one's own."""
    if network.name == "resnet50_imagenet":
        words = f"suite launch imagenet --weights {file}"
        return words + (f" --classes {network.classes}" if network.classes != 1000 else "")
    name = given or network.name
    if network.classes != 10:
        dataset = DATASETS.get(network.classes, "NAME")
        made = f'Network("{name}", "{network.shortcut}", {network.classes})'
        return f'in a sweep of yours, docs/your-own.md: Pretrained({made}, Dataset("{dataset}"), "{file}")'
    words = f"suite launch cifar10 --weights {file} --model {name} --shortcut {network.shortcut}"
    return words + (f" --normalization {normalization}" if normalization else "")


def _accuracies(network: Network, model: nn.Module, folder: Path) -> str:
    """Print the top-1 under each normalization on the data set that has as many classes; the name of the best, none
    where there is no such data set or it cannot be measured."""
    name, results = DATASETS.get(network.classes, ""), {}
    for kind, (mean, std) in NORMALIZATIONS.get(name, {}).items():
        try:
            images = datasets.load(Dataset(name, mean, std), "test", folder, torch.device("cpu"))
            *_, score = evaluate(channels_last(model), images, Ranks())
        except Exception as error:  # without the data, or of a network for images of another size
            _say(f"  accuracy not measured: {first_line(error)}")
            return ""
        assert isinstance(score, Score)
        results[kind] = score.top1
        _say(
            f"  {score.top1:.2f} % top-1 on {counted(score.images, 'test image')} of {name}, {kind} normalization"
        )
    return max(results, key=lambda kind: results[kind]) if results else ""
