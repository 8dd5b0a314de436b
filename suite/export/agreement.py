"""Does the exported file compute what the simulation computes? Measured on test images, by ONNX Runtime.

Three arithmetics are compared. The simulation rounds, and multiplies in float32. ONNX Runtime without its integer
kernels does the same. With them it sums integers; on an x86 processor without VNNI it then clips sums of two products
to 16 bits, unless weights have 7 bits or are unsigned: nothing fails, only the numbers change.
"""

from __future__ import annotations

import math
import os
import platform
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from suite.data.image_folder import Streamed
from suite.data.images import Images
from suite.formats.onnx_graph import rounded_tensors, scopes_of
from suite.integers.levels import levels_of
from suite.quantizers.layers import Quantized
from suite.quantizers.quantizer import Quantizer
from suite.ranks import Ranks
from suite.recipe.errors import SuiteError, first_line, in_a_line
from suite.recipe.words import counted
from suite.record.provenance import cpu_flags

if TYPE_CHECKING:
    from onnx import ModelProto

ONE_FLIP_IN, MEAN_DIFFERENCE = 2000, 0.02
"""The most that may differ where the arithmetic is the same: float32 sums in another order move few values across a
rounding."""
NOISE_BUT_ONE_IN = 1000
VNNI = ("avx_vnni", "avx512_vnni", "amx_int8")
X86 = ("x86_64", "amd64", "i686", "i386")
WITHOUT_VNNI = ("SSE41", "AVX", "AVX2", "AVX512_CORE")
"""Values of ONEDNN_MAX_CPU_ISA."""
BATCH = 100
PLACE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |\S+\.(?:h|cc|cpp):\d+ .*?\) ")
"""What ONNX Runtime says before the reason of an error: its number, and where in its own code it was raised."""


def has_vnni() -> bool:
    """Whether this processor sums 8-bit products in 32 bits. Only x86 has processors that do not; oneDNN, of PyTorch
    and OpenVINO, behaves as one of those where the environment says so."""
    if platform.machine().lower() not in X86:
        return True
    limited = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in WITHOUT_VNNI
    return not limited and any(flag in cpu_flags() for flag in VNNI)


def every(images: Images | Streamed, most: int | None) -> slice:
    """Which images `most` of them are: evenly spread, since a data set may be sorted by class."""
    if most is None or most >= len(images):
        return slice(None)
    apart = len(images) // most
    return slice(0, apart * most, apart)


def batches(images: Images | Streamed, most: int | None, batch: int = BATCH) -> Iterator[Tensor]:
    """Normalized test images in order, `batch` at a time, `most` of them: those of `every`."""
    chosen = every(images, most)
    left = len(images) if most is None else most
    for x, _ in images.share(Ranks(world_size=chosen.step or 1), batch):
        yield x[:left]
        left -= len(x)
        if left <= 0:
            return


def simulated(model: nn.Module, images: Images | Streamed, most: int | None) -> Tensor:
    """float32 [n, classes]: the logits of `model`."""
    with torch.no_grad():
        return torch.cat([model(x).float() for x in batches(images, most)])


@dataclass(frozen=True)
class Simulation:
    """A quantized network and its logits, float32 [n, classes], of `most` of the test images, evenly spread, None for
    all: what a file of it is compared with."""

    model: nn.Module
    test: Images | Streamed
    most: int | None
    logits: Tensor

    @classmethod
    def of(cls, model: nn.Module, test: Images | Streamed, most: int | None) -> Simulation:
        """With the logits of `model`."""
        return cls(model, test, most, simulated(model, test, most))

    @property
    def example(self) -> Tensor:
        """Two test images, for exporters."""
        return next(batches(self.test, None))[:2]

    def batches(self, batch: int = BATCH) -> Iterator[Tensor]:
        """The images, `batch` at a time."""
        return batches(self.test, self.most, batch)

    def beside(self, other: nn.Module) -> dict[str, Any]:
        """`difference` from another network."""
        return difference(self.logits, simulated(other, self.test, self.most))


def session(
    made: ModelProto | bytes, integer_kernels: bool, optimized: Path | None = None, threads: int = 1
) -> Any:
    """One of ONNX Runtime; without integer kernels every operator computes as it says. Raises SuiteError where this
    ONNX Runtime does not take the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if not integer_kernels:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    content = made if isinstance(made, bytes) else made.SerializeToString()
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has a class of its own for each kind
        raise _not_taken(error) from error


def ran(run: Any, names: list[str], x: Tensor) -> list[Any]:
    """The tensors of these names that a session gives for the images `x`. Raises SuiteError where it cannot."""
    try:
        found: list[Any] = run.run(names, {"images": np.ascontiguousarray(x.numpy())})
    except Exception as error:  # some kernels say only now what they do not take
        raise _not_taken(error) from error
    return found


def _not_taken(error: Exception) -> SuiteError:
    import onnxruntime

    own = "[ONNXRuntimeError]" in str(error)
    reason = PLACE.sub("", first_line(error)).strip().rstrip(".") if own else in_a_line(error)
    return SuiteError(
        f"ONNX Runtime {onnxruntime.__version__} does not compute this file: {reason}; install a newer onnxruntime"
    )


def answered(made: bytes, images: Iterator[Tensor], integer_kernels: bool) -> Tensor:
    """float32 [n, classes]: the logits of ONNX Runtime for batches of images."""
    run = session(made, integer_kernels)
    found = [ran(run, ["logits"], x)[0] for x in images]
    return torch.from_numpy(np.concatenate(found))


def difference(reference: Tensor, found: Tensor, noise: float = 0.0) -> dict[str, Any]:
    """images, flips of the class with the largest logit, and mean and largest difference of logits.

    flips_beyond_noise: those where the two largest logits of the reference lie further apart than twice `noise`, by
    which rounding alone may move a logit. noise: of this comparison, the largest difference of an image's logits, of
    all images but one in NOISE_BUT_ONE_IN: one image of which a value crosses a rounding early, and whose logits move
    far, does not excuse flips of others.
    """
    apart = (reference - found).abs()
    flipped = reference.argmax(1) != found.argmax(1)
    first, second = reference.topk(2).values.T
    return {
        "images": len(reference),
        "flips": int(flipped.sum()),
        "flips_beyond_noise": int((flipped & (first - second >= 2 * noise)).sum()),
        "mean_difference": float(apart.mean()),
        "largest_difference": float(apart.max()),
        "noise": float(apart.amax(1).quantile(1 - 1 / NOISE_BUT_ONE_IN, interpolation="lower")),
    }


def few_images(images: int) -> str:
    """A warning where a comparison on so many images says little; else empty."""
    if images >= ONE_FLIP_IN:
        return ""
    return (
        f"compared on {counted(images, 'image')}, where one answer may differ; {ONE_FLIP_IN:,} or more are needed to "
        f"check the bound of 1 in {ONE_FLIP_IN:,}"
    )


def within_bounds(record: dict[str, Any]) -> bool:
    """At most one flip beyond noise in ONE_FLIP_IN images, and a mean difference of MEAN_DIFFERENCE at most."""
    most = math.ceil(record["images"] / ONE_FLIP_IN)
    return bool(record["flips_beyond_noise"] <= most and record["mean_difference"] <= MEAN_DIFFERENCE)


def optimized(made: bytes) -> ModelProto:
    """What ONNX Runtime makes on this machine of a file that it computed before. Raises SuiteError where there is no
    room for it."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "optimized.onnx"
        try:
            session(made, True, file)
            return onnx.load(str(file))
        except Exception as error:  # it says no more of a full disk than that it could not write
            raise no_room("ONNX Runtime") from error


def no_room(runtime: str) -> SuiteError:
    """The error of a runtime that cannot write what it makes meanwhile."""
    return SuiteError(
        f"{runtime} cannot write into {tempfile.gettempdir()}, the folder for temporary files; free some space there, "
        f"or name another one in the environment variable TMPDIR"
    )


def kernels(made: ModelProto) -> dict[str, int]:
    """How many operators of each kind that multiply, add or pool there are."""
    ops = Counter(node.op_type for node in made.graph.node)
    words = ("Conv", "Gemm", "MatMul", "Add", "Pool", "Mean")
    return {name: count for name, count in sorted(ops.items()) if any(word in name for word in words)}


def layers_with_integer_biases(made: ModelProto, result: ModelProto) -> set[str]:
    """The layers of the file `made` whose biases are int32 in what ONNX Runtime made of it, by its names of them."""
    ending = "_bias_int32"
    nodes = {one.name.removesuffix(ending) for one in result.graph.initializer if one.name.endswith(ending)}
    return {
        scopes[-2] for node in made.graph.node if node.name in nodes and len(scopes := scopes_of(node)) > 1
    }


def differences(
    made: ModelProto, model: nn.Module, x: Tensor, integer_kernels: bool = False
) -> Iterator[dict[str, Any]]:
    """The quantizers whose integers differ between `model` and ONNX Runtime, with its integer kernels or without, on
    the images `x`, in the order of the graph: the layer's name, the share of its integers that differ, and by how many
    levels at most."""
    import onnx

    if not (names := rounded_tensors(made)):
        return  # weights alone are rounded
    shown = onnx.ModelProto()
    shown.CopyFrom(made)
    given = {node.output[0]: node for node in made.graph.node}
    types = {one.name: one.data_type for one in made.graph.initializer}
    for tensor in names.values():
        kind = types.get(given[tensor].input[2], onnx.TensorProto.UINT8)
        shown.graph.output.append(onnx.helper.make_tensor_value_info(tensor, kind, None))
    theirs = dict(zip(names, ran(session(shown, integer_kernels), list(names.values()), x), strict=True))
    ours = _integers(model, x, set(names))
    for name in names:
        # Both lie on one grid; where its zero stands in the file does not matter here.
        zeros = {one.name: one for one in made.graph.initializer}[given[names[name]].input[2]]
        zero = int(onnx.numpy_helper.to_array(zeros))
        apart = (ours[name] - (torch.from_numpy(theirs[name].astype(np.int64)) - zero)).abs()
        if bool(apart.any()):
            share = float((apart > 0).double().mean())
            yield {"layer": name.removesuffix(".input"), "share": share, "levels": int(apart.max())}


def first_difference(made: ModelProto, model: nn.Module, x: Tensor) -> dict[str, Any] | None:
    """Of `differences` in the arithmetic of the simulation the first, None where all agree."""
    return next(differences(made, model, x), None)


def first_clipped(made: ModelProto, model: nn.Module, x: Tensor) -> dict[str, Any] | None:
    """Of `differences` with integer kernels the first by more than one level, which rounding alone gives; else the
    first, None where all agree."""
    found = list(differences(made, model, x, integer_kernels=True))
    return next((one for one in found if one["levels"] > 1), found[0] if found else None)


def _integers(model: nn.Module, x: Tensor, names: set[str]) -> dict[str, Tensor]:
    """q - zero_point of each named quantizer of `model` for the images `x`, int64."""
    found: dict[str, Tensor] = {}
    hooks = []
    for name, module in model.named_modules():
        # In a traced network the names are those of the layers.
        quantizer = module.input if isinstance(module, Quantized) else module
        if name in names and isinstance(quantizer, Quantizer):
            scale = levels_of(quantizer).scale

            def keep(_: nn.Module, __: Any, y: Tensor, name: str = name, scale: Tensor = scale) -> None:
                found[name] = torch.round(y / scale).long()

            hooks.append(quantizer.register_forward_hook(keep))
    try:
        with torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found
