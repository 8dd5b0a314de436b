"""suite.load(): the network of a finished stage, by its key."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from suite.formats.rebuild import rebuilt
from suite.networks.channels_last import channels_last
from suite.recipe import Pretrained, Training
from suite.record.files import Folders
from suite.run.float_stage import load_float
from suite.sweeps.stored import find_stages


def load(
    key: str, *, runs: str | os.PathLike[str] = "runs", data: str | os.PathLike[str] = "data"
) -> nn.Module:
    """The network of a finished stage, on the CPU, in evaluation mode. Of a recipe it is the quantized network as its
    run evaluated it, which computes in float32 on rounded values; of a training or a checkpoint the float network.

    It takes images as the data set gives them: float32 [n, channels, size, size], normalized by its mean and standard
    deviation, and returns float32 logits [n, classes].

    key: the key of the stage, as `suite plan` shows it, or its first characters.
    runs, data: the folders of --runs and --data; a method that calibrates reads its images again, and learns nothing
    again that its run kept.

    Raises SuiteError for a key that is not that of one stage, for a stage that is not done, and where a file or a data
    set that it needs is missing or changed.
    """
    folders = Folders(Path(runs), Path(data))
    [stage] = find_stages(folders.runs, [key])
    if isinstance(stage, Training | Pretrained):
        return channels_last(load_float(stage, folders)).eval()
    return rebuilt(stage, folders).model
