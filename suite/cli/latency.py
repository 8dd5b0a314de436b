"""The command that measures how long exported networks take."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter
from rich import get_console
from rich.table import Table

from suite.cli.options import FOLDERS, FolderOptions, Whole
from suite.sweeps.stored import find_stages

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
            show_default=False, help="some of onnxruntime, openvino and inductor (default: those installed)"
        ),
    ] = (),
    folders: FolderOptions = FOLDERS,
) -> int:
    """Measure how long finished recipes take as integers, and their float networks, in every runtime that is here.
    `suite report` draws top-1 against it."""
    from suite.export.latency import Asked, disturbed, measure
    from suite.recipe.errors import SuiteError

    if not keys:
        raise SuiteError("name the keys of one or more finished recipes, as `suite plan` shows them")
    console = get_console()
    asked = Asked(batch, threads, seconds, images, runtimes)
    stages = find_stages(folders.runs, list(dict.fromkeys(_flat(keys))))
    with console.status("") as shown:
        file, record = measure(stages, folders, asked, lambda words: shown.update(words))
    console.print(table(record))
    for words in about(record):
        console.print(words, markup=False, highlight=False, soft_wrap=True)
    if warning := disturbed(record):
        console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    console.print(str(file), markup=False, highlight=False, soft_wrap=True)
    return 0


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
    """Machine and what was skipped, a line each."""
    clocks = record["clocks"]
    mhz = f", {clocks['mhz'][0]:.0f} to {clocks['mhz'][1]:.0f} MHz" if "mhz" in clocks else ""
    threads = f"{record['threads']} thread" + "s" * (record["threads"] != 1)
    flags = " ".join(record["cpu_flags"])
    lines = [
        f"{record['device']}, {threads} a runtime{mhz}; load {record['load_average']:.1f} on {record['cores']} "
        f"cores; {flags}",
        "x float32: by processor time, of the first float network, in the same runtime and batch",
    ]
    return lines + [f"skipped {what}: {why}" for what, why in record["skipped"].items()]
