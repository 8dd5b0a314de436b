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
from suite.ranks import Ranks
from suite.recipe import CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD, Dataset
from suite.recipe.errors import SuiteError
from suite.record import files
from suite.train.evaluate import Score, evaluate

NORMALIZATIONS = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "cifar10": (CIFAR10_MEAN, CIFAR10_STD)}


def inspect(
    file: Annotated[Path, Parameter(name="FILE", help="a file of torch.save, or .safetensors")],
    /,
    *,
    data: Annotated[Path, Parameter(env_var="SUITE_DATA", help="folder of the data sets")] = Path("data"),
) -> int:
    """Say what a checkpoint file is: its weights, the networks of the suite that take them, and their accuracy on
    CIFAR-10 where that lies in --data."""
    if not file.is_file():
        raise SuiteError(f"no file {file}")
    console, content, notes = get_console(), checkpoint_files.read(file), list[str]()
    state = checkpoint_files.weights_of(content, file, notes)
    count = sum(value.numel() for value in state.values() if value.is_floating_point())
    dtypes = ", ".join(sorted({str(v.dtype).removeprefix("torch.") for v in state.values() if v.dim()}))
    console.print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, SHA-256 {files.sha256(file)}", soft_wrap=True)
    console.print(f"{len(state)} tensors of {count:,} numbers, {dtypes}", highlight=False)
    found = recognize.matches(content, file)
    if not found:
        console.print(
            'it fits no network of the suite; give yours with Network("my_net.py:build"), docs/your-own.md',
            soft_wrap=True,
            markup=False,
        )
        return 1
    for network, model, understood in found:
        console.print(f"\nit is a {network.name}, shortcut {network.shortcut}, {network.classes} outputs")
        for note in understood:
            console.print(f"  {note}", soft_wrap=True, markup=False, highlight=False)
        best = _accuracies(model, data)
        words = f"suite launch cifar10 --weights {file} --model {network.name} --shortcut {network.shortcut}"
        words += f" --classes {network.classes}" if network.classes != 10 else ""
        words += f" --normalization {best}" if best else ""
        console.print(f"  {words}", soft_wrap=True, markup=False, highlight=False)
    return 0


def _accuracies(model: nn.Module, folder: Path) -> str:
    """Print the top-1 on CIFAR-10 under each normalization; the name of the best, none without the data."""
    results = {}
    for name, (mean, std) in NORMALIZATIONS.items():
        try:
            images = datasets.load(Dataset("cifar10", mean, std), "test", folder, torch.device("cpu"))
        except SuiteError as error:
            get_console().print(
                f"  accuracy not measured: {error}", soft_wrap=True, markup=False, highlight=False
            )
            return ""
        *_, score = evaluate(model.to(memory_format=torch.channels_last), images, Ranks())  # type: ignore[call-overload]
        assert isinstance(score, Score)
        results[name] = score.top1
        text = f"  {score.top1:.2f} % top-1 on {score.images:,} test images of cifar10, {name} normalization"
        get_console().print(text, highlight=False)
    return max(results, key=lambda name: results[name])
