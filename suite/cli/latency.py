"""The command that measures how long exported networks take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich import get_console
from rich.table import Table

from suite.cli.live import doing
from suite.cli.options import FOLDERS, FolderOptions, Whole
from suite.recipe import Stage
from suite.recipe.words import counted
from suite.record.files import Folders
from suite.sweeps.stored import find_stages

if TYPE_CHECKING:
    from suite.measure.latency import Asked

Keys = Annotated[
    tuple[str, ...],
    Parameter(name="KEY", help="keys of finished recipes of one data set, or their first characters"),
]


def latency(
    *keys: Keys,
    batch: Annotated[tuple[Whole, ...], Parameter(help="batch sizes")] = (1, 128),
    threads: Annotated[Whole, Parameter(help="threads of each runtime")] = 1,
    seconds: Annotated[float, Parameter(help="about how long to measure each network in each way")] = 10.0,
    images: Annotated[Whole, Parameter(help="test images to measure top-1 on, evenly spread")] = 1000,
    runtimes: Annotated[
        tuple[str, ...],
        Parameter(
            show_default=False,
            help="some of onnxruntime, openvino, inductor and torch_ao (default: those installed)",
        ),
    ] = (),
    layers: Annotated[
        bool,
        Parameter(
            help="each layer of one network by itself, in ONNX Runtime: for widths within a budget of time"
        ),
    ] = False,
    folders: FolderOptions = FOLDERS,
) -> int:
    """Measure how long finished recipes take as integers, and their float networks, in every runtime that is here.
    `suite report` draws top-1 against it."""
    from suite.measure.latency import Asked, measure
    from suite.measure.timing import disturbed
    from suite.recipe.errors import SuiteError

    if not keys:
        raise SuiteError("name the keys of one or more finished recipes, as `suite plan` shows them")
    console = get_console()
    asked = Asked(batch, threads, seconds, images, runtimes)
    stages = find_stages(folders.runs, list(dict.fromkeys(_flat(keys))))
    if layers:
        return _layers(stages, asked, folders)
    with doing(console) as say:
        file, record = measure(stages, folders, asked, say)
    console.print(table(record))
    for words in about(record):
        console.print(words, markup=False, highlight=False, soft_wrap=True)
    if warning := disturbed(record["rows"], record["threads"]):
        console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    console.print(str(file), markup=False, highlight=False, soft_wrap=True)
    return 0


def _layers(stages: Sequence[Stage], asked: Asked, folders: Folders) -> int:
    from suite.measure.layer_latency import measure_layers
    from suite.measure.timing import disturbed
    from suite.recipe.errors import SuiteError

    if len(stages) != 1:
        raise SuiteError("--layers measures the layers of one network; name one key")
    console, batch = get_console(), asked.batches[0]
    with doing(console) as say:
        file, record = measure_layers(stages[0], folders, batch, asked.threads, asked.seconds, say)
    console.print(layers_table(record))
    warning = disturbed(record["layers"], record["threads"])
    for words in [machine_line(record), warning and f"warning: {warning}", str(file)]:
        if words:
            console.print(words, markup=False, highlight=False, soft_wrap=True)
    return 0


def layers_table(record: dict[str, Any]) -> Table:
    """A row for each layer: milliseconds in integers of 8 bits and in float32, and how many times faster that is."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("layer", "int8, ms", "95 %", "float32, ms", "95 %", "x float32"):
        made.add_column(name, no_wrap=True, justify="left" if name == "layer" else "right")
    rows = {(row["name"], row["weight_bits"]): row for row in record["layers"]}
    for name in dict.fromkeys(row["name"] for row in record["layers"]):
        pair = rows[name, 8], rows[name, 32]
        cells = [
            text
            for row in pair
            for text in (f"{row['milliseconds']:.3g}", f"{row['low_ms']:.3g} to {row['high_ms']:.3g}")
        ]
        made.add_row(name, *cells, f"{pair[1]['milliseconds'] / pair[0]['milliseconds']:.2f}")
    return made


def _flat(keys: Any) -> list[str]:
    return [one for key in keys for one in ((key,) if isinstance(key, str) else key)]


def table(record: dict[str, Any]) -> Table:
    """A row for each network, runtime, precision and batch."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("batch", "runtime", "precision", "network"):
        made.add_column(name, justify="right" if name == "batch" else "left")
    for name in ("ms a batch", "95 %", "processor ms", "x float32", "top-1 %"):
        made.add_column(name, no_wrap=True, justify="right")
    floats = {(row["runtime"], row["batch"]): row for row in record["rows"] if row["precision"] == "float32"}
    for row in sorted(record["rows"], key=lambda row: (row["batch"], row["runtime"])):
        base = floats.get((row["runtime"], row["batch"]))
        made.add_row(
            str(row["batch"]), row["runtime"], row["precision"], row["name"],
            f"{row['median_ms']:.3g}", f"{row['low_ms']:.3g} to {row['high_ms']:.3g}", f"{row['processor_ms']:.3g}",
            f"{base['processor_ms'] / row['processor_ms']:.2f}" if base else "",
            f"{row['top1']:.2f}" if "top1" in row else "",
        )  # fmt: skip
    return made


def about(record: dict[str, Any]) -> list[str]:
    """Machine, what the table means, and what was skipped, a line each."""
    ratio = "x float32: times as fast as the first float network, by processor time, in the same runtime and batch"
    skipped = (f"skipped {what}: {why}" for what, why in record["skipped"].items())
    return [machine_line(record), ratio, *skipped]


def machine_line(record: dict[str, Any]) -> str:
    """Where it was measured."""
    clocks = record["clocks"]
    mhz = f", {clocks['mhz'][0]:.0f} to {clocks['mhz'][1]:.0f} MHz" if "mhz" in clocks else ""
    threads = counted(record["threads"], "thread")
    flags = " ".join(record["cpu_flags"])
    return (
        f"{record['device']}, {threads} a runtime{mhz}; load {record['load_average']:.1f} on "
        f"{counted(record['cores'], 'core')}; "
        f"{flags}"
    )
