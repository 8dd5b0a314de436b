"""Every module of these tests has one runs folder with a trained network."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from fakes.exported import Finished
from fakes.missing import missing


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def needs_onnx() -> None:
    if find_spec("onnx") is None:
        missing("onnx is not installed; pip install '.[export]'")
