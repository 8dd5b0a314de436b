"""How weights are stored in the ONNX file: int4 where they fit, unsigned only where a processor would clip sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fakes.exported import Finished
from hypothesis import given
from hypothesis import strategies as st

from suite.export import agreement
from suite.export.agreement import Simulation
from suite.export.exporting import layers
from suite.export.onnx_file import could_clip, onnx_file
from suite.export.request import Request
from suite.formats.onnx_graph import _moved
from suite.formats.rebuild import rebuilt
from suite.methods.adaround import Adaround
from suite.methods.k_sigma import KSigma
from suite.methods.scheme import Scheme
from suite.quantizers.layers import layer_of
from suite.recipe import Calibration
from suite.recipe.method import Method

CALIBRATION = Calibration(images=128, batch=64)


@given(st.integers(0, 2**31), st.lists(st.integers(0, 15), min_size=1, max_size=4))
def test_sixteen_integers_in_a_row_fit_into_4_bits_with_a_zero_point_a_channel(
    seed: int, zeros: list[int]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randint(0, 16, (len(zeros), 30), generator=generator) - torch.tensor(zeros)[:, None]
    found = _moved(q, True, 4)
    assert found is not None
    moved, zero = found
    assert torch.equal(moved - zero[:, None], q)
    assert all(int(one.min()) >= -8 and int(one.max()) <= 7 for one in found)
    whole = _moved(q.clamp(-8, 7), False, 4)
    assert whole is not None and int(whole[1]) == 0 and torch.equal(whole[0], q.clamp(-8, 7))


@pytest.mark.parametrize("ends", [(-8, 8), (-16, 0), (1, 17)])
def test_a_channel_that_spans_more_does_not(ends: tuple[int, int]) -> None:
    assert _moved(torch.tensor([[0, 0], ends]), True, 4) is None


def kinds_of(
    finished: Finished, method: Method, request: Request | None = None
) -> tuple[dict[str, str], dict[str, list[int]], Simulation]:
    """Of each layer the type of its stored weight and its zero points, as the record of an export has them; with them
    the file gives the weight of the simulation."""
    import onnx

    source = rebuilt(finished.recipe(method), finished.folders)
    simulation = Simulation.of(source.model, source.images("test"), None)
    content, _ = onnx_file(simulation, request or Request(), {}, [])
    stored = {one.name: one for one in onnx.load_from_string(content).graph.initializer}
    kinds, zeros = {}, {}
    for entry in layers(source.model, content):
        name, weight = entry["name"], entry["weight"]
        kinds[name], zeros[name] = weight["type"], np.ravel(weight["zero_point"]).tolist()
        q = onnx.numpy_helper.to_array(stored[f"{name}.q"]).astype(int)
        shape = [-1, *[1] * (q.ndim - 1)]
        zero, scale = (np.reshape(weight[one], shape) for one in ("zero_point", "scale"))
        layer: Any = layer_of(source.model.get_submodule(name))
        assert np.allclose((q - zero) * scale, layer.weight.detach().numpy(), atol=1e-6)
    return kinds, zeros, simulation


def test_without_vnni_only_layers_that_could_clip_are_unsigned_and_narrow_ones_stay_int4(
    finished: Finished, needs_onnx: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 bits with 8 at the ends: the narrow layers took a whole byte each before."""
    monkeypatch.setattr(agreement, "has_vnni", lambda: False)
    kinds, _, simulation = kinds_of(finished, Scheme(4, 4, calibration=CALIBRATION, first_last=8))
    clips = could_clip(simulation.model)
    assert set(clips) <= {"stem", "linear"} and clips
    assert {name for name, kind in kinds.items() if kind == "uint8"} == set(clips)
    assert {name for name, kind in kinds.items() if kind == "int4"} == {"conv1", "conv2", "short"}


def test_channels_with_zero_points_of_their_own_are_int4_too_and_agree(
    finished: Finished, needs_onnx: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The levels of adaround reach from -8 to 8 over the channels, 16 in each; onnx_file compares the answers."""
    monkeypatch.setattr(agreement, "has_vnni", lambda: True)
    kinds, zeros, _ = kinds_of(finished, Adaround(4, 4, iterations=2, batch=16, feed=CALIBRATION))
    narrow = {name for name, kind in kinds.items() if kind == "int4"}
    assert narrow == {"conv1", "conv2", "short"}
    assert any(zero for name in narrow for zero in zeros[name])


def test_all_weights_are_unsigned_where_that_is_asked_for(finished: Finished, needs_onnx: None) -> None:
    """Of 4 bits too: runtimes compute layers of int4 weights in float32."""
    recipe = Scheme(4, 4, calibration=CALIBRATION, first_last=8)
    kinds, _, _ = kinds_of(finished, recipe, Request(unsigned_weights=True))
    assert set(kinds.values()) == {"uint8"} and len(kinds) == 5


def test_a_network_whose_weights_alone_are_rounded_is_written_and_compared(
    finished: Finished, needs_onnx: None
) -> None:
    """ONNX Runtime, asked for the integers of no input, gave the logits, and the export failed."""
    kinds, _, _ = kinds_of(finished, KSigma(5))
    assert set(kinds) == {"stem", "conv1", "conv2", "short"} and set(kinds.values()) <= {"int8", "int4"}
