"""What integers bring a ResNet-50 on this processor, and whether the file computes what the simulation computes.

Speed: a ResNet-50 of random weights at 224 x 224 (no kernel's time depends on the values), rounded to 8 bits and with
integers everywhere, and its float network, as ONNX files in ONNX Runtime, or another of --runtimes: interleaved,
warmed up, on stated threads. Answers: the same network and convention of a small network trained on scikit-learn's
digits, whose test images ONNX Runtime answers with its integer kernels and the simulation answers too. Exactness: the
sums of each convolution and linear layer of that network, in integers alone, equal to those of ONNX Runtime's
ConvInteger and MatMulInteger bit by bit.
Weights have 8 bits, and 7 on a processor without VNNI, which would clip sums of 8-bit products.

The last line is JSON: int8_over_float, the processor time of float32 over that of int8 in the same runtime, the least
over the batches; flips_per_10000; exact.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from suite import networks, quantize
from suite.cli.latency import about, table
from suite.export import agreement
from suite.export.runtimes import PACKAGES, Exported, why_not
from suite.formats import onnx_graph
from suite.formats.rebuild import Rebuilt, rebuilt
from suite.integers.everywhere import integer_everywhere
from suite.integers.integer_network import Codes, IntegerNetwork
from suite.integers.levels import Integers
from suite.measure.latency import made, timed
from suite.measure.timing import disturbed, machine
from suite.methods.mse import Mse
from suite.quantizers.layers import CONVOLUTIONS
from suite.ranks import Ranks
from suite.recipe import Calibration, Dataset, Network, Precision, Recipe, Sgd, Training
from suite.record.files import Folders
from suite.run.stage import run


def weight_bits() -> int:
    """The most bits of a weight with which every kernel of this processor sums right."""
    return 8 if agreement.has_vnni() else 7


def resnet50(side: int) -> list[Exported]:
    """(float, int8), of random weights; ranges from 4 random images of 64 x 64."""
    torch.manual_seed(0)
    network = networks.build(Network("resnet50")).eval()
    x = torch.randn(4, 3, 64, 64)
    method = Mse(weight_bits(), 8, feed=Calibration(images=4, batch=2))
    rounded = quantize(network, method, [x[:2], x[2:]])
    everywhere, _ = integer_everywhere(rounded, [x])
    example = torch.randn(2, 3, side, side)
    return [
        Exported("float", "resnet50", network, example, int8=False),
        Exported("int8", f"resnet50 mse w{weight_bits()}a8", everywhere, example, int8=True),
    ]


def small(folder: Path) -> Rebuilt:
    """A finished recipe of 8-bit inputs on digits."""
    sgd = Sgd(epochs=1, batch=64, lr=0.05, flip=False, pad=1, precision=Precision("O0"))
    start = Training(Network("resnet20"), Dataset("digits", size=8), sgd)
    recipe = Recipe(start, Mse(weight_bits(), 8, feed=Calibration(images=128, batch=64)))
    folders = Folders(folder / "runs", folder / "data")
    for stage in (start, recipe):
        run(stage, Ranks(), folders)
    return rebuilt(recipe, folders)


def flips(network: torch.fx.GraphModule, source: Rebuilt) -> tuple[int, int]:
    """(answers of ONNX Runtime's integer kernels that are not the simulation's, images)."""
    simulation = agreement.Simulation.of(network, source.images("test"), None)
    content = Exported("int8", "small", network, simulation.example, int8=True).onnx()
    answers = agreement.answered(content, simulation.batches(), integer_kernels=True)
    found = agreement.difference(simulation.logits, answers)
    return int(found["flips"]), int(found["images"])


def is_exact(network: torch.fx.GraphModule, x: torch.Tensor) -> bool:
    """Whether the sums of every convolution and linear layer are those of ConvInteger and MatMulInteger, bit by bit,
    for the images `x`."""
    integers = IntegerNetwork(network)
    equal = []
    known = integers.products

    def compared(x: Codes, name: str, layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
        total, scale = known(x, name, layer)
        equal.append(torch.equal(total, summed(x, integers.weights[name], layer)))
        return total, scale

    setattr(integers, "products", compared)  # noqa: B010, a method for this call alone
    integers(x)
    return len(equal) == len(integers.weights) > 0 and all(equal)


def summed(x: Codes, weight: Integers, layer: Any) -> torch.Tensor:
    """int64: what ONNX Runtime's ConvInteger or, of a linear layer, MatMulInteger sums, of weights stored unsigned,
    which is exact on every processor."""
    from onnx import TensorProto, helper

    moved = -min(int(x.q.min()), 0)
    w, zeros = onnx_graph.stored(weight, unsigned=True)
    (zero,) = torch.unique(zeros)  # it takes one for all channels
    if not isinstance(layer, CONVOLUTIONS):
        w = w.T.contiguous()
    given = {"x": x.q + moved, "w": w, "xz": torch.tensor(x.zero_point + moved), "wz": zero}
    arrays = {name: value.numpy().astype(np.uint8) for name, value in given.items()}
    infos = [helper.make_tensor_value_info(name, TensorProto.UINT8, a.shape) for name, a in arrays.items()]
    how: dict[str, Any] = {}
    if isinstance(layer, CONVOLUTIONS):
        how = {
            "pads": [*layer.padding] * 2,
            "strides": [*layer.stride],
            "dilations": [*layer.dilation],
            "group": layer.groups,
            "kernel_shape": [*layer.kernel_size],
        }
    node = helper.make_node("ConvInteger" if how else "MatMulInteger", list(arrays), ["y"], **how)
    output = helper.make_tensor_value_info("y", TensorProto.INT32, None)
    graph = helper.make_graph([node], "one", infos, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    found = agreement.session(model, True).run(None, arrays)[0]
    return torch.from_numpy(found).long()


def ratio(rows: list[dict[str, Any]], runtime: str) -> float:
    """Processor time of float32 over that of int8, the least over the batches."""
    times: dict[tuple[int, str], float] = {
        (row["batch"], row["precision"]): row["processor_ms"] for row in rows if row["runtime"] == runtime
    }
    return min(
        times[batch, "float32"] / time for (batch, precision), time in times.items() if precision == "int8"
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 128])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each precision and batch, about")
    parser.add_argument("--side", type=int, default=224, help="pixels of an image")
    parser.add_argument("--runtimes", nargs="+", choices=tuple(PACKAGES), default=["onnxruntime"])
    given = parser.parse_args(arguments)
    for runtime in ("onnxruntime", *given.runtimes):
        if reason := why_not(runtime):
            parser.error(f"{runtime}: {reason}")
    torch.set_num_threads(given.threads)

    def doing(words: str) -> None:
        print(words, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        doing("a small network, trained and rounded, to compare")
        source = small(Path(folder))
        network, _ = integer_everywhere(source.model, source.calibration())
        flipped, images = flips(network, source)
        exact = is_exact(network, next(agreement.batches(source.images("test"), 20)))
    doing("ResNet-50, rounded")
    exported, skipped, rows = resnet50(given.side), dict[str, str](), list[dict[str, Any]]()
    for batch in given.batch:
        engines = made(exported, given.runtimes, skipped, batch, given.threads, doing, given.runtimes)
        x = torch.randn(batch, 3, given.side, given.side).numpy()
        rows += timed(engines, x, given.seconds, doing)
    record = {**machine(given.threads), "skipped": skipped, "rows": rows}
    console = Console(width=160)
    console.print(table(record))
    for words in [*about(record), f"{flipped} of {images} answers flip", disturbed(rows, given.threads)]:
        if words:
            console.print(words, markup=False, highlight=False, soft_wrap=True)
    ratios = {runtime: round(ratio(rows, runtime), 2) for runtime in given.runtimes}
    result = {
        "int8_over_float": ratios[given.runtimes[0]],
        "flips_per_10000": round(10_000 * flipped / images, 1),
        "exact": exact,
        "by_runtime": ratios,
        "batches": given.batch,
        "threads": given.threads,
        "vnni": agreement.has_vnni(),
        "weight_bits": weight_bits(),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
