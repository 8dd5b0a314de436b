"""`suite export KEY --compare FILE`: an ONNX file that was there before, against the simulation, on this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.export import agreement
from suite.export.agreement import Simulation
from suite.export.onnx_file import compared_onnx, could_clip
from suite.export.request import CONVENTIONS, record_of
from suite.export.runtimes import check_installed
from suite.formats.rebuild import check_on_grids, rebuilt
from suite.integers.everywhere import integer_everywhere
from suite.recipe import Stage
from suite.recipe.errors import SuiteError, in_a_line
from suite.record import files
from suite.record.files import Folders

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

MOST_BYTES = 2**31
"""Of an ONNX file without external data."""


def compare(stage: Stage, folders: Folders, file: Path, images: int | None) -> dict[str, Any]:
    """What `agreement` and `warnings` of the record of an export are, of a file that is there. Writes nothing.

    Raises SuiteError for a file that is damaged, no ONNX, of another network or beyond this ONNX Runtime, and where it
    does not compute what the simulation computes.
    """
    check_installed()
    if not file.is_file():
        what = "is no regular file" if file.exists() else "cannot be read: No such file or directory"
        raise SuiteError(f"{file} {what}; name an ONNX file")
    made = read(file, str(_record(file).get("sha256", "")))
    about = {one.key: one.value for one in made.metadata_props}
    if about.get("key", stage.key) != stage.key:
        raise SuiteError(f"{file} was exported of {about.get('name')} ({about['key']}), not of {stage.key}")
    source = rebuilt(stage, folders)
    check_on_grids(source)
    model = source.model
    if about.get("convention") == CONVENTIONS[True]:
        model, _ = integer_everywhere(model, source.calibration())
    simulation = Simulation.of(model, source.images("test"), images)
    warnings: list[str] = []
    weights = [one for one in made.graph.initializer if one.name.endswith(".q")]
    unsigned = {one.name.removesuffix(".q") for one in weights if one.data_type == 2}  # uint8
    clips = [name for name in could_clip(model) if name not in unsigned]
    found = compared_onnx(made, simulation, clips, warnings)
    if words := agreement.few_images(len(simulation.logits)):
        warnings.append(words)
    return {"to": "onnx", "agreement": found, "warnings": warnings}


def read(file: Path, sha256: str = "") -> ModelProto:
    """An ONNX file that this ONNX Runtime takes, with the input and the output of `suite export`; of this SHA-256
    where one is given. Raises SuiteError."""
    import onnx

    try:
        content = files.read_bytes(file, MOST_BYTES)
    except OSError as error:
        raise SuiteError(f"{file} cannot be read: {error}; name an ONNX file") from error
    if sha256 and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise SuiteError(
            f"{file} is damaged or was changed: its sha256 is {found[:16]}, not {sha256[:16]} as {record_of(file)} "
            f"says; export it again"
        )
    try:
        made: ModelProto = onnx.load_from_string(content)
        if any(one.data_location == onnx.TensorProto.EXTERNAL for one in _tensors(made.graph)):
            raise ValueError("it names other files for its weights, which are not read")
        onnx.checker.check_model(made)
    except Exception as error:  # protobuf and onnx have classes of their own
        raise SuiteError(
            f"{file} is no ONNX file, or damaged: {in_a_line(error)}; export it again: suite export KEY --to onnx"
        ) from error
    try:
        session = agreement.session(made, False)
    except SuiteError as error:
        opsets = ", ".join(str(one.version) for one in made.opset_import if not one.domain)
        raise SuiteError(
            f"{file} (opset {opsets}): {error}, or export it again, which writes opset 21"
        ) from error
    ends = [one.name for one in session.get_inputs()], [one.name for one in session.get_outputs()]
    if ends != (["images"], ["logits"]):
        raise SuiteError(
            f"{file} goes from {', '.join(ends[0])} to {', '.join(ends[1])}; a file of `suite export` goes from "
            f"images to logits"
        )
    return made


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """All tensors that a graph holds: its initializers, and those of its nodes."""
    yield from graph.initializer
    for attribute in (one for node in graph.node for one in node.attribute):
        yield from [*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])]
        for inner in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
            yield from _tensors(inner)


def _record(file: Path) -> dict[str, Any]:
    """The record beside the file; empty where there is none."""
    try:
        return dict(json.loads(files.read_bytes(record_of(file))))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise SuiteError(
            f"{record_of(file)}, the record beside the file, cannot be read: {error}; export it again, or move it away"
        ) from error
