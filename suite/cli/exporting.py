"""The commands that take a quantized network out of the suite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich import get_console
from rich.table import Table

from suite.cli.options import FOLDERS, FolderOptions, Whole
from suite.recipe import Recipe, Training
from suite.recipe.errors import SuiteError
from suite.recipe.words import counted
from suite.record.files import Folders
from suite.sweeps.stored import find_stages

Key = Annotated[str, Parameter(name="KEY", help="key of a finished recipe, or its first characters")]


@Parameter(name="*")
@dataclass(frozen=True)
class NetworkOptions:
    """Those of a recipe's network, with --to or --compare."""

    to: Annotated[
        str | None,
        Parameter(
            help="onnx, pt2e, openvino, state_dict or safetensors: write the recipe's quantized network in this "
            "format; safetensors with the key of a training: its float weights in float16, with a model card"
        ),
    ] = None
    out: Annotated[
        Path | None, Parameter(help="with --to: the file to write (default: KEY with the format's ending)")
    ] = None
    integer_everywhere: Annotated[
        bool,
        Parameter(
            help="with --to: quantize additions and pooling too, so that all layers compute in integers"
        ),
    ] = False
    unsigned_weights: Annotated[
        bool,
        Parameter(
            help="with --to onnx: uint8 weights, which x86 processors without VNNI need (default there)"
        ),
    ] = False
    signed_weights: Annotated[bool, Parameter(help="with --to onnx: int8 weights on any processor")] = False
    images: Annotated[
        Whole | None, Parameter(help="with --to: number of test images to compare on (default: all)")
    ] = None
    compiled: Annotated[
        bool,
        Parameter(
            help="with --to: compare TorchInductor's integer kernels too, which take a minute to compile"
        ),
    ] = False
    compare: Annotated[
        Path | None,
        Parameter(
            help="instead of --to: compare this ONNX file of the recipe with its simulation on this machine"
        ),
    ] = None


NETWORK = NetworkOptions()


def export(
    what: Annotated[
        str,
        Parameter(name="WHAT", help="with --to or --compare the key of a recipe, else the name of a sweep"),
    ],
    /,
    *,
    network: NetworkOptions = NETWORK,
    parquet: Annotated[
        Path | None, Parameter(help="of a sweep: write its runs and epochs as Parquet")
    ] = None,
    csv: Annotated[Path | None, Parameter(help="of a sweep: write its runs and epochs as CSV")] = None,
    source: Annotated[
        str, Parameter(name="--from", help="of a sweep: journals, mlflow, or a runs.csv")
    ] = "journals",
    folders: FolderOptions = FOLDERS,
) -> int:
    """Write a recipe's quantized network, with --to, compared with its simulation; or all runs of a sweep as Parquet
    or CSV."""
    if network.compare is not None or network.to is not None:
        from suite.ranks import keep_freed_memory  # which waits for torch

        keep_freed_memory()
    if network.compare is not None:
        return _compare(what, network.compare, network.images, folders)
    if network.to is None:
        if not parquet and not csv:
            raise SuiteError(
                "export needs to know what to write; give --to onnx with the key of a recipe, or --parquet FILE or "
                "--csv FILE with the name of a sweep"
            )
        from analysis.__main__ import export as export_runs

        return export_runs(what, runs=folders.runs, source=source, parquet=parquet, csv=csv)
    return _export(what, network, folders)


def _export(key: str, network: NetworkOptions, folders: FolderOptions) -> int:
    from suite.export.exporting import export as export_network
    from suite.export.float_checkpoint import is_float
    from suite.export.request import Request

    if network.unsigned_weights and network.signed_weights:
        raise SuiteError("--unsigned-weights and --signed-weights contradict each other; give one")
    unsigned = True if network.unsigned_weights else False if network.signed_weights else None
    asked = network.out, network.integer_everywhere, unsigned, network.images
    request = Request(network.to, *asked, compiled=network.compiled)  # type: ignore[arg-type]
    [stage] = find_stages(folders.runs, [key])
    if is_float(stage) and request.to == "safetensors":
        assert isinstance(stage, Training | Recipe)
        return _share(stage, folders, request.file(stage.key))
    file, beside, record = export_network(stage, folders, request)
    for path in (file, beside):
        get_console().print(str(path), markup=False, highlight=False, soft_wrap=True)
    for line in _lines(record):
        get_console().print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def _compare(key: str, file: Path, images: int | None, folders: FolderOptions) -> int:
    from suite.export.file_check import compare

    record = compare(find_stages(folders.runs, [key])[0], folders, file, images)
    for line in _lines(record):
        get_console().print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def _share(stage: Training | Recipe, folders: Folders, file: Path) -> int:
    """The weights of a float network, for others to start from."""
    from suite.export.float_checkpoint import share

    card, score = share(stage, folders, file)
    for line in (
        file,
        card,
        f"top-1 {score.top1:.2f} % of {counted(score.images, 'test image')}, measured from the file",
    ):
        get_console().print(str(line), markup=False, highlight=False, soft_wrap=True)
    return 0


def _lines(record: dict[str, Any]) -> list[str]:
    """What was compared, and the warnings."""
    from suite.export import probes

    runtime = "ONNX Runtime" if record["to"] in ("onnx", "openvino") else "PyTorch"
    names = {
        "integer_everywhere": "integers everywhere, simulated, against the recipe's own",
        "same_arithmetic": f"{runtime} in the same arithmetic against the simulation",
        "integer_kernels": f"{runtime}'s integer kernels against the simulation",
        "openvino": "OpenVINO's integer kernels against the simulation",
    }
    found = []
    if "convention" in record:
        top1 = f"top-1 {record['simulated_top1']:.2f} % simulated, {record['top1']:.2f} % recorded"
        found.append(f"{record['convention']}; {top1}")
    for name, words in names.items():
        if "flips" in record["agreement"].get(name, {}):
            one = record["agreement"][name]
            found.append(
                f"{words}: {one['flips']} of {one['images']} answers differ, logits by {one['mean_difference']:.3g} "
                f"in the mean, {one['largest_difference']:.3g} at most"
            )
    found += probes.lines(record["agreement"].get("runtimes", {}))
    return found + [f"warning: {line}" for line in record["warnings"]]


@Parameter(name="*")
@dataclass(frozen=True)
class ExampleOptions:
    """Which value `suite dataflow` carries through."""

    image: Annotated[int, Parameter(help="test image of the example, from 0")] = 0
    output_channel: Annotated[int, Parameter(help="output channel of the example, from 0")] = 0
    input_channel: Annotated[int, Parameter(help="input channel of the product that is shown, from 0")] = 0
    at: Annotated[
        tuple[int, int] | None,
        Parameter(help="row and column of the output, from 0 (default: those of the largest output)"),
    ] = None


EXAMPLE = ExampleOptions()


def dataflow(
    key: Key,
    layer: Annotated[str, Parameter(name="LAYER", help="such as layer1.0.conv1")],
    /,
    *,
    example: ExampleOptions = EXAMPLE,
    folders: FolderOptions = FOLDERS,
) -> int:
    """Show the way of one layer of a finished recipe through integers, with one value carried through, and how many of
    its sums overflow accumulators of 32 and of 16 bits."""
    from suite.measure import dataflow as flow

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("step", "type", "bits", "from", "to", "scale", "example", "in real units"):
        table.add_column(name, no_wrap=True, justify="left" if name in ("step", "type", "scale") else "right")
    chosen = flow.Example(example.image, example.output_channel, example.input_channel, example.at)
    found = flow.dataflow(find_stages(folders.runs, [key])[0], layer, folders, chosen)
    for row in found.rows:
        ends = [f"{end:.6g}" for end in (row.low, row.high)]
        table.add_row(
            row.step, row.type, str(row.bits), *ends, row.scale, f"{row.example:.10g}", f"{row.real:.6g}"
        )
    get_console().print(table)
    for bits, count in found.overflows.items():
        line = f"accumulators of {bits} bits: {count:,} of {found.sums:,} sums overflow"
        get_console().print(line, markup=False, highlight=False, soft_wrap=True)
    return 0
