"""The float network that a recipe starts from."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from suite import checkpoint, events, models
from suite.recipe import Pretrained, Training
from suite.settings import Folders
from suite.values import SuiteError


def load_float(start: Training | Pretrained, folders: Folders) -> nn.Module:
    """The float network that `start` left, on the CPU. Raises SuiteError where its file is missing or changed."""
    if isinstance(start, Pretrained):
        file = Path(start.file)
        if not file.is_file() or checkpoint.sha256(file) != start.sha256:
            raise SuiteError(
                f"{file} is not the checkpoint of sha256 {start.sha256[:16]} that was planned; launch the sweep again"
            )
        return models.load_weights(start.network, file)
    folder = folders.runs / start.key
    record = events.outcome(folder)
    if record is None:
        raise SuiteError(f"{start.name} ({start.key}) is not done yet; run it first")
    saved = record["checkpoint"]
    state = checkpoint.load(folder / Path(saved["file"]).name, saved["sha256"])
    model = models.build(start.network)
    model.load_state_dict(state["model"])
    return model
