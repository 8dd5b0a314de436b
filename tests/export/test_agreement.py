"""What is counted between the simulation and a file, and what may differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fakes.missing import missing

from suite.data import datasets
from suite.export import agreement
from suite.export.runtimes import why_not
from suite.recipe import Dataset
from suite.recipe.errors import SuiteError


def test_a_flip_counts_where_the_classes_lie_further_apart_than_noise() -> None:
    reference = torch.tensor([[1.0, 1.1, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    found = torch.tensor([[1.1, 1.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 2.0]])
    for noise, flips in ((0.0, 2), (0.2, 1), (2.0, 0)):
        record = agreement.difference(reference, found, noise)
        assert (record["flips"], record["flips_beyond_noise"]) == (2, flips)
    assert record["mean_difference"] == pytest.approx(6.2 / 9) and record["largest_difference"] == 3.0


def test_one_flip_in_2000_and_a_mean_of_a_fiftieth_may_differ() -> None:
    for images, flips, mean, allowed in (
        (2000, 1, 0.02, True),
        (2000, 2, 0.0, False),
        (599, 1, 0.0, True),
        (10_000, 5, 0.01, True),
        (10_000, 6, 0.01, False),
        (2000, 0, 0.021, False),
    ):
        record = {"images": images, "flips_beyond_noise": flips, "mean_difference": mean}
        assert agreement.within_bounds(record) == allowed


def test_one_image_whose_logits_move_far_excuses_no_flips_of_others() -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(2000, 10, generator=generator)
    moved = reference + 0.01 * torch.rand(2000, 10, generator=generator)
    moved[7] += 5.0
    record = agreement.difference(reference, moved)
    assert record["largest_difference"] > 5 and 0.005 < record["noise"] <= 0.01
    assert agreement.difference(reference[:1], moved[:1])["noise"] <= 0.01


def test_a_comparison_on_few_images_says_so() -> None:
    assert agreement.few_images(2000) == ""
    assert agreement.few_images(1999).startswith("compared on 1,999 images, where one answer may differ")


@pytest.mark.parametrize(("levels", "found"), [([], None), ([1, 1], "one"), ([1, 9], "two"), ([4, 9], "one")])
def test_the_first_layer_that_integer_kernels_clip_differs_by_more_than_a_level(
    monkeypatch: pytest.MonkeyPatch, levels: list[int], found: str | None
) -> None:
    """Rounding moves an integer by one; the layers before the one that clips are not to blame."""

    def differences(*_: Any, integer_kernels: bool) -> Iterator[dict[str, Any]]:
        assert integer_kernels
        return ({"layer": name, "levels": n} for name, n in zip(("one", "two"), levels, strict=False))

    monkeypatch.setattr(agreement, "differences", differences)
    nothing: Any = None
    first = agreement.first_clipped(nothing, nothing, nothing)
    assert (first and first["layer"]) == found


def test_a_file_that_no_session_takes_is_the_users_to_mend() -> None:
    if reason := why_not("onnxruntime"):
        missing(reason)
    with pytest.raises(
        SuiteError, match="ONNX Runtime .* does not compute this file.*install a newer onnxruntime"
    ):
        agreement.session(b"no onnx", True)
    failing: Any = SimpleNamespace(run=lambda *_: {}["QLinearConv"])
    with pytest.raises(SuiteError, match="does not compute this file: KeyError"):
        agreement.ran(failing, ["logits"], torch.zeros(1, 3, 8, 8))


def test_a_full_disk_for_temporary_files_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that computed before can fail only where its optimized form is written."""
    if reason := why_not("onnxruntime"):
        missing(reason)
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("images", "logits"))
    graph = helper.make_graph([helper.make_node("Relu", ["images"], ["logits"])], "one", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert agreement.kernels(agreement.optimized(made.SerializeToString())) == {}
    monkeypatch.setattr("tempfile.TemporaryDirectory", lambda: nullcontext("/no/such/folder"))
    with pytest.raises(SuiteError, match="cannot write into .*, the folder for temporary files; free some"):
        agreement.optimized(made.SerializeToString())


@pytest.mark.parametrize("most", [1, 7, 300, 599, 5000, None])
def test_the_images_that_are_compared_are_evenly_spread(most: int | None) -> None:
    test = datasets.load(Dataset("digits", size=8), "test", Path(), torch.device("cpu"))
    x = torch.cat(list(agreement.batches(test, most)))
    whole = torch.cat(list(agreement.batches(test, None)))
    assert torch.equal(x, whole[agreement.every(test, most)]) and len(x) == min(most or 599, 599)
    assert len(test.labels[agreement.every(test, most)]) == len(x)


def test_vnni_is_asked_of_the_machines_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    for machine, flags, has in (
        ("x86_64", ("avx2",), False),
        ("x86_64", (), False),
        ("AMD64", ("avx2", "avx_vnni"), True),
        ("aarch64", ("asimddp",), True),
    ):
        monkeypatch.setattr(agreement.platform, "machine", lambda machine=machine: machine)
        monkeypatch.setattr(agreement, "cpu_flags", lambda flags=flags: flags)
        assert agreement.has_vnni() == has
