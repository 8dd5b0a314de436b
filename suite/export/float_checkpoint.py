"""The float network of a finished training as one small file for others, with its model card.

The file holds the weights in float16 (safetensors). Its accuracy is measured from the very file: it is read back as
any checkpoint is. The card, in Markdown, says what it is and how it came about.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from suite.export.request import check_replaceable
from suite.networks.channels_last import channels_last
from suite.ranks import Ranks
from suite.recipe import FLOAT_BITS, Pretrained, Recipe, Stage, Training
from suite.recipe.errors import SuiteError
from suite.recipe.planning import float_stage_of
from suite.recipe.words import counted
from suite.record.files import Folders, sha256, write_bytes
from suite.record.journal import read_events, read_outcome, run_seconds
from suite.run.float_stage import images_of, load_float, load_trained
from suite.train.evaluate import Score, evaluate

LARGEST = torch.finfo(torch.float16).max


def is_float(stage: Stage) -> bool:
    """Whether the network of a stage is float: a training, or a recipe that trains one further and rounds nothing."""
    if not isinstance(stage, Recipe):
        return isinstance(stage, Training)
    widths = (stage.method.weight_bits, stage.method.act_bits)
    return stage.trains_by is not None and min(widths) >= FLOAT_BITS


def share(stage: Training | Recipe, folders: Folders, file: Path) -> tuple[Path, Score]:
    """Write `file` and, beside it, its card, FILE.md; the card's path and what the file scores on the test images.

    stage: one that `is_float`. Raises SuiteError where it is not done, a weight is beyond float16, `file` ends in
    .md, or there is no room. Nothing is left then.
    """
    outcome = read_outcome(folders.runs / stage.key)
    if outcome is None:
        raise SuiteError(f"{stage.name} ({stage.key}) is not done yet; run it first: suite run {stage.key}")
    start = float_stage_of(stage)
    card = file.with_suffix(".md")
    if card == file:
        raise SuiteError(f"--out {file} ends in .md, the name of the model card; give another ending")
    check_replaceable(card)
    halves = half(load_trained(stage, folders) if isinstance(stage, Recipe) else load_float(stage, folders))
    try:
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=f"{file.name}.") as folder:
            fresh = Path(folder) / "weights.safetensors"
            write_bytes(save(halves, {"key": stage.key, "name": stage.name}), fresh)
            pretrained = Pretrained(start.network, start.dataset, str(fresh.absolute()), sha256(fresh))
            score = _score(load_float(pretrained, folders), stage, folders)
            write_bytes(card_of(stage, outcome, folders, fresh, score, file.name).encode(), card)
            fresh.replace(file)
    except OSError as error:
        raise SuiteError(
            f"{file} cannot be written: {error.strerror}; free some space, or give another --out"
        ) from error
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


def _score(model: nn.Module, stage: Stage, folders: Folders) -> Score:
    *_, score = evaluate(channels_last(model), images_of(stage, "test", folders), Ranks())
    assert isinstance(score, Score)
    return score


def card_of(
    stage: Training | Recipe, outcome: dict[str, Any], folders: Folders, file: Path, score: Score, name: str
) -> str:
    """The card, as Markdown, of `file`, which will be called `name`."""
    start, trained = float_stage_of(stage), _trainings(stage)
    events = [read_events(folders.runs / one.key) for one in trained]
    attempts = [event for journal in events for event in journal if event["event"] == "started"]
    commits = list(dict.fromkeys(event["commit"][:10] for event in attempts if event.get("commit")))
    devices = list(dict.fromkeys(event["device"] for event in attempts if event.get("device")))
    hours = sum(run_seconds(journal) for journal in events) / 3600
    rows = [
        ("file", f"`{name}`, {file.stat().st_size / 1e6:.1f} MB, weights in float16 (safetensors)"),
        ("SHA-256", f"`{sha256(file)}`"),
        *(("trained by", f"`{one.name}`, key `{one.key}`") for one in trained),
        ("commit", ", ".join(f"`{commit}`" for commit in commits) or "unknown"),
        ("time", f"{hours:.1f} hours in {counted(len(attempts), 'attempt')}"),
        ("device", "; ".join(devices) or "unknown"),
    ]
    lines = [
        f"# {start.network.name} on {start.dataset.name}, float",
        "",
        f"{score.top1:.2f} % top-1 and {score.top5:.2f} % top-5 of all {counted(score.images, 'test image')}, "
        f"measured from this file; {outcome['top1']:.2f} % from the float32 weights of the run.",
        "",
        *_table("what", "", rows),
    ]
    for one in trained:
        settings = [(f"`{name}`", value) for name, value in one.params.items() if value not in ("", None)]
        lines += [f"Every setting of `{one.key}`:", "", *_table("setting", "value", settings)]
    return "\n".join(lines)


def _trainings(stage: Training | Recipe) -> list[Training | Recipe]:
    """Those that made the network, the first one first."""
    if isinstance(stage, Training):
        return [stage]
    before = stage.continues or stage.start
    return [*([] if isinstance(before, Pretrained) else _trainings(before)), stage]


def _table(first: str, second: str, rows: list[tuple[str, Any]]) -> list[str]:
    """The lines of a Markdown table of two columns, and an empty one."""
    lines = [f"| {first} | {second} |".replace("|  |", "| |"), "| --- | --- |"]
    return [*lines, *(f"| {name} | {value} |" for name, value in rows), ""]
