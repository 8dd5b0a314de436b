"""A float network of a finished training as one small file for others, with its model card.

The file holds the weights in float16 (safetensors). Its accuracy is measured from the very file: it is read back as
any checkpoint is. The card, in Markdown, says what it is and how it came about.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from suite.networks.channels_last import channels_last
from suite.ranks import Ranks
from suite.recipe import Pretrained, Training
from suite.recipe.errors import SuiteError
from suite.record.files import Folders, sha256, write_bytes
from suite.record.journal import read_events, read_outcome, run_seconds
from suite.run.start import images_of, load_float
from suite.train.evaluate import Score, evaluate

LARGEST = torch.finfo(torch.float16).max


def share(training: Training, folders: Folders, file: Path) -> tuple[Path, Score]:
    """Write `file` and, beside it, its card, FILE.md; the card's path and what the file scores on the test images.

    Raises SuiteError where the training is not done, a weight is beyond float16, or there is no room. Nothing is left
    then.
    """
    outcome = read_outcome(folders.runs / training.key)
    if outcome is None:
        raise SuiteError(
            f"{training.name} ({training.key}) is not done yet; run it first: suite run {training.key}"
        )
    card, fresh = file.with_suffix(".md"), file.with_name(f"{file.stem}.{os.getpid()}.safetensors")
    halves = half(load_float(training, folders))
    try:
        write_bytes(save(halves, {"key": training.key, "name": training.name}), fresh)
        pretrained = Pretrained(training.network, training.dataset, str(fresh.absolute()), sha256(fresh))
        score = _score(load_float(pretrained, folders), training, folders)
        write_bytes(card_of(training, outcome, folders, fresh, score, file.name).encode(), card)
        fresh.replace(file)
    except OSError as error:
        raise SuiteError(
            f"{file} cannot be written: {error.strerror}; free some space, or give another --out"
        ) from error
    finally:
        fresh.unlink(missing_ok=True)
    return card, score


def half(model: nn.Module) -> dict[str, Tensor]:
    """The state of `model` in float16, but for its whole numbers. Raises SuiteError for a value too large for it."""
    state = model.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point() and float(tensor.abs().max()) > LARGEST:
            raise SuiteError(
                f"{name} holds {float(tensor.abs().max()):.3g}, beyond the largest float16, {LARGEST:.0f}; share "
                f"checkpoint.pt of the run directory instead"
            )
    halves = {name: x.half() if x.is_floating_point() else x for name, x in state.items()}
    return {name: tensor.contiguous() for name, tensor in halves.items()}


def _score(model: nn.Module, training: Training, folders: Folders) -> Score:
    *_, score = evaluate(channels_last(model), images_of(training, "test", folders), Ranks())
    assert isinstance(score, Score)
    return score


def card_of(
    training: Training, outcome: dict[str, Any], folders: Folders, file: Path, score: Score, name: str
) -> str:
    """The card, as Markdown, of `file`, which will be called `name`."""
    events = read_events(folders.runs / training.key)
    attempts = [event for event in events if event["event"] == "started"]
    commits = list(dict.fromkeys(event["commit"][:10] for event in attempts if event.get("commit")))
    devices = list(dict.fromkeys(event["device"] for event in attempts if event.get("device")))
    rows = {
        "file": f"`{name}`, {file.stat().st_size / 1e6:.1f} MB, weights in float16 (safetensors)",
        "SHA-256": f"`{sha256(file)}`",
        "trained by": f"`{training.name}`, key `{training.key}`",
        "commit": ", ".join(f"`{commit}`" for commit in commits) or "unknown",
        "time": f"{run_seconds(events) / 3600:.1f} hours in {len(attempts)} attempts",
        "device": "; ".join(devices) or "unknown",
    }
    recipe = {name: value for name, value in training.params.items() if value not in ("", None)}
    return "\n".join(
        [
            f"# {training.network.name} on {training.dataset.name}, float",
            "",
            f"{score.top1:.2f} % top-1 and {score.top5:.2f} % top-5 of all {score.images:,} test images, measured "
            f"from this file; {outcome['top1']:.2f} % from the float32 weights of the run.",
            "",
            "| what | |",
            "| --- | --- |",
            *(f"| {name} | {value} |" for name, value in rows.items()),
            "",
            "Every setting of the training:",
            "",
            "| setting | value |",
            "| --- | --- |",
            *(f"| `{name}` | {value} |" for name, value in recipe.items()),
            "",
        ]
    )
