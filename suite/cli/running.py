"""The commands that run stages without a launcher."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Annotated, NoReturn

from cyclopts import Parameter
from rich import get_console
from rich.markup import escape

from suite.cli.live import watched
from suite.cli.options import FOLDERS, FolderOptions, Whole
from suite.cli.rows import literal
from suite.ranks import from_environment
from suite.recipe.errors import SuiteError
from suite.recipe.words import counted
from suite.record.keys import read_skipped
from suite.record.lease import ReplacedError
from suite.record.waiting import announced
from suite.stop import REQUEUE, Stop
from suite.sweeps.stored import find_stages

JOIN_SECONDS = 600.0
"""How long ranks that are started together wait for each other: Python may import slowly from a busy disk."""


def run(
    keys: Annotated[list[str], Parameter(name="KEY", help="keys of stages, or their first characters")],
    /,
    *,
    folders: FolderOptions = FOLDERS,
) -> int:
    """Run single stages in this process."""
    from suite.run import stage as stage_run  # which waits for torch
    from suite.run.attempt import InterruptedRunError

    console, stop = get_console(), Stop().listen()
    stages = find_stages(folders.runs, keys)
    others = (
        f", and for the other ranks at {os.environ.get('MASTER_ADDR')}" if stages[0].world_size > 1 else ""
    )
    with announced(f"this process waits for its device{others}", JOIN_SECONDS):
        ranks = from_environment(stages[0].world_size)
    failed = 0
    for stage in stages:
        if stage.key in _skipped():
            console.print(f"cancelled: {literal(stage.name)}")
            continue
        try:
            with watched(console, stage, folders.runs, shown=ranks.writes):
                stage_run.run(stage, ranks, folders, stop)
        except InterruptedRunError as asked:
            if ranks.writes:
                console.print(f"{stop.asked_by}: {literal(f'{stage.name}: {asked}')}", soft_wrap=True)
            ranks.leave()
            return REQUEUE
        except ReplacedError as error:
            console.print(literal(f"{stage.name}: {error}"), soft_wrap=True)
            return 1  # whoever took this stage takes the others too
        except Exception as error:
            failed += 1
            if not isinstance(error, SuiteError):
                traceback.print_exc()
            words = literal(f"{stage.name}: {type(error).__name__}: {error}")
            console.print(f"[red]failed[/] {words}", soft_wrap=True)
            if ranks.world_size > 1:  # the other ranks may be at another stage by now, or gone
                return _end_beside_kernels() if ranks.device.type == "cuda" else 1
    ranks.leave()
    return 1 if failed else 0


def _end_beside_kernels() -> NoReturn:
    """End at once with status 1: kernels of NCCL that wait for a rank that is gone keep Python from ending."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _skipped() -> set[str]:
    """The stages that were cancelled while this process works on others, from the file that SUITE_SKIPPED names."""
    file = os.environ.get("SUITE_SKIPPED")
    return read_skipped(Path(file)) if file else set()


def verify_resume(
    *,
    tries: Annotated[Whole, Parameter(help="runs to kill, of each kind of stage")] = 1,
    ranks: Annotated[
        tuple[Whole, ...],
        Parameter(help="numbers of ranks (default: 1 2; 1 on a machine of one GPU)"),
    ] = (),
    seed: Annotated[Whole, Parameter(help="seed of the random moments")] = 0,
) -> int:
    """Kill runs at random moments and show that they go on to the same weights, bit for bit."""
    import torch

    from suite.launch.verify_resume import stages, verify

    ranks = ranks or ((1,) if torch.cuda.device_count() == 1 else (1, 2))  # NCCL refuses two ranks on a GPU
    console = get_console()
    with tempfile.TemporaryDirectory() as folder:
        bad = 0
        for verdict in verify(stages(ranks), tries, seed, Path(folder)):
            words = "[green]equal[/]" if not verdict.differences else "[red]DIFFERENT[/]"
            name = f"{verdict.stage.name}, {counted(verdict.stage.world_size, 'rank')}"
            console.print(
                f"{words}  {name}: {counted(verdict.tries, 'run')}, {counted(verdict.kills, 'kill')}, "
                f"{verdict.resumed} resumed",
                soft_wrap=True,
            )
            for difference in verdict.differences:
                bad += 1
                console.print(escape(difference[:300]), soft_wrap=True)
    console.print(
        "every run went on to the same bits" if not bad else f"[red]{counted(bad, 'difference')}[/]"
    )
    return 1 if bad else 0
