"""A tiny sweep of a user's, and a command that must be refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from suite.cli.main import main

SWEEP = '''"""Two widths on one tiny training."""
from typing import Annotated
from suite.methods.amax import Amax
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training

def sweep(epochs: Annotated[int, "epochs of the training"] = 1):
    sgd = Sgd(epochs=epochs, batch=256, lr=0.05, pad=1, flip=False, precision=Precision("O0"))
    training = Training(Network("resnet20"), Dataset("digits", size=8), sgd)
    return [Recipe(training, Amax(bits, bits)) for bits in (8, 4)]
'''


@pytest.fixture
def own(tmp_path: Path) -> str:
    """The file of that sweep."""
    (tmp_path / "own.py").write_text(SWEEP)
    return str(tmp_path / "own.py")


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that must end with status 2; what it said on stderr."""
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "Traceback" not in said
    return " ".join(said.split())
