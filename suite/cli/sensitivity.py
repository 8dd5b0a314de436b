"""The command that measures what rounding each layer costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from cyclopts import Parameter
from rich import get_console
from rich.console import Console
from rich.progress import Progress

from suite.cli.live import doing
from suite.cli.options import FOLDERS, FolderOptions, Whole
from suite.cli.rows import Rows
from suite.recipe import Calibration
from suite.steps import MeasureSensitivity
from suite.stop import Stop
from suite.sweeps.stored import find_stages

COSTS = ("layer", "tensor", "bits", "noise dB", "logits", "gradient", "Hessian", "± se", "loss", "top-1 %")
ALL_BUT = ("all but: loss", "top-1 %")
RANKS = ("tensor", "bits", "score", "layers", "rho with the loss alone", "with all but one")


def sensitivity(
    key: Annotated[str, Parameter(name="KEY", help="key of a recipe or float network, or its beginning")],
    /,
    *,
    widths: Annotated[tuple[Whole, ...], Parameter(help="bits to round to")] = (2, 3, 4, 8),
    images: Annotated[Whole, Parameter(help="training images to measure on")] = 256,
    seed: Annotated[Whole, Parameter(help="seed of the choice of images and of the random vectors")] = 0,
    probes: Annotated[
        Whole, Parameter(help="random vectors for every 8 images, for the trace of the Hessian")
    ] = 2,
    scores_only: Annotated[
        bool,
        Parameter(help="leave out what takes long: the loss with one layer rounded, and with all but one"),
    ] = False,
    folders: FolderOptions = FOLDERS,
) -> int:
    """Measure what rounding each layer costs, weights and inputs apart."""
    from suite.ranks import keep_freed_memory
    from suite.run.attempt import InterruptedRunError
    from suite.run.measure import sensitivity as measure  # which waits for torch

    keep_freed_memory()
    console, stop = get_console(), Stop().listen()
    (stage,) = find_stages(folders.runs, [key])
    calibration = Calibration(images, min(images, 64), seed)
    how = MeasureSensitivity(widths, images=calibration, probes=probes, truth=not scores_only)
    try:
        with _progress(console) as tick:
            record = measure(stage, folders, how, tick, stop)
    except InterruptedRunError as asked:
        console.print(f"{stop.asked_by}: {asked}", soft_wrap=True, markup=False)
        return 1
    for table in costs_tables(record, console.width):
        console.print(table)
    if record["correlations"] or how.truth:
        console.print(_ranks(record["correlations"]))
    file, start = folders.runs / stage.key / "artifacts" / "sensitivity.json", record["float"]
    console.print(
        f"training images: {record['images']}; float loss {start['loss']:.4f}, top-1 {start['top1']:.2f} %; in {file}",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    return 0


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[float, str], None]]:
    """Gives what shows which part is done, from 0 to 1, and what is being done: a bar on a terminal, else lines."""
    if not console.is_terminal:
        with doing(console) as say:
            yield lambda part, words: say(f"{part:.0%}  {words}")
        return
    with Progress(console=console, transient=True) as shown:
        task = shown.add_task("", total=1.0)
        yield lambda part, words: shown.update(task, completed=part, description=words)


def costs_tables(record: Mapping[str, Any], width: int) -> list[Rows]:
    """A row for each layer, tensor and width; where a terminal of `width` is too narrow for all columns, the scores in
    one table and the losses in another."""
    has_truth = any(cost["loss_alone"] is not None for cost in record["costs"])
    titles = [*COSTS, *ALL_BUT] if has_truth else COSTS[:8]
    table = Rows(titles, titles[2:], ("layer",))
    for cost in record["costs"]:
        row = [cost["layer"], cost["tensor"], str(cost["bits"]), _decibels(cost["noise"])]
        row += [_short(cost[name]) for name in ("logits", "gradient", "hessian", "hessian_standard_error")]
        for way in ("alone", "all_but") if has_truth else ():
            row += [f"{cost[f'loss_{way}']:.4f}", f"{cost[f'top1_{way}']:.2f}"]
        table.rows.append([(text, "") for text in row])
    if table.fits(width):
        return [table]
    named, scores, losses = (0, 1, 2), range(3, 8), range(8, len(titles))
    parts = [(*named, *columns) for columns in (scores, losses) if columns]
    return [
        Rows(
            [titles[n] for n in part], titles[2:], ("layer",), [[row[n] for n in part] for row in table.rows]
        )
        for part in parts
    ]


def _ranks(found: Sequence[Mapping[str, Any]]) -> Rows | str:
    """The table or, where there is none, why."""
    from suite.sensitivity.correlation import LEAST

    return (
        ranks_table(found) if found else f"No rank correlation: that needs {LEAST} layers whose costs differ."
    )


def ranks_table(found: Sequence[Mapping[str, Any]]) -> Rows:
    """Which score ranks layers as the truth does: Spearman's rho, and its 95 % interval."""
    table = Rows(RANKS, RANKS[1:2])
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for one in found:
        ranked = one["tensor"], str(one["bits"]), one["score"], str(one["layers"])
        shown = f"{one['rho']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"
        rows.setdefault(ranked, {})[one["truth"]] = shown
    for named, shown_by in rows.items():
        cells = [*named, shown_by.get("loss_alone", ""), shown_by.get("loss_all_but", "")]
        table.rows.append([(text, "") for text in cells])
    return table


def _decibels(noise: float) -> str:
    return f"{10 * math.log10(noise):.1f}" if noise > 0 else "none"


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
