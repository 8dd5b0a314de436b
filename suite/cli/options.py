"""The options that several commands have: each a type with the text that --help shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from suite import sweeps
from suite.launch.launcher import LAUNCHERS
from suite.record.files import Folders
from suite.sweeps.options import exact

Whole = Annotated[int, Parameter(converter=exact)]

SweepName = Annotated[
    str, Parameter(name="SWEEP", help=f"{', '.join(sweeps.names())}, or the path of your own .py file")
]
SweepWords = Annotated[
    str,
    Parameter(
        name="OPTIONS",
        allow_leading_hyphen=True,
        help="options of the sweep; `suite plan SWEEP --help` shows them",
    ),
]
ExplainWords = Annotated[
    str, Parameter(name="OPTIONS", allow_leading_hyphen=True, help="options of the steps, listed below")
]
LaunchedName = Annotated[str, Parameter(name="SWEEP", help="name of a launched sweep")]
Only = Annotated[
    str | None,
    Parameter(help="only stages whose name contains this, such as amax or 'amax*w4' (* and ? allowed)"),
]
Name = Annotated[str | None, Parameter(help="another name for the sweep, to keep two variants of it")]
Download = Annotated[bool, Parameter(help="fetch data sets that are not in --data")]


@Parameter(name="*")
@dataclass(frozen=True)
class FolderOptions(Folders):
    """Where runs are written and where data sets lie."""

    runs: Annotated[Path, Parameter(env_var="SUITE_RUNS", help="folder of the run directories")] = Path(
        "runs"
    )
    data: Annotated[Path, Parameter(env_var="SUITE_DATA", help="folder of the data sets")] = Path("data")


@Parameter(name="*")
@dataclass(frozen=True)
class RunsOptions(FolderOptions):
    """Those of a command that reads no data set: it takes --data as the others do, and --help does not show it."""

    data: Annotated[Path, Parameter(env_var="SUITE_DATA", show=False)] = Path("data")


@Parameter(name="*")
@dataclass(frozen=True)
class LauncherOptions:
    """Which launcher, and its own options."""

    on: Annotated[
        str | None,
        Parameter(
            choices=list(LAUNCHERS),
            help="here (the default): a process of this machine for each stage; torchrun: the same, with several "
            "processes for a training over several GPUs; slurm: jobs of a cluster, this command need not stay alive",
        ),
    ] = None
    cluster: Annotated[
        Path | None,
        Parameter(help="the cluster's file, a copy of slurm/cluster.toml; alone it means --on slurm"),
    ] = None
    workers: Annotated[
        Whole | None,
        Parameter(help="processes at a time on this machine (default: one a GPU, else one a core)"),
    ] = None

    @property
    def given(self) -> dict[str, object]:
        """The launcher's own options that were given."""
        own = {"workers": self.workers, "cluster": self.cluster}
        return {name: value for name, value in own.items() if value is not None}


@Parameter(name="*")
@dataclass(frozen=True)
class PlanOptions(LauncherOptions):
    """What decides the jobs of a launch."""

    gpus_per_run: Annotated[
        Whole | None,
        Parameter(
            help="GPUs that share each training, instead of as many as the sweep says; more than 1 not with --on here"
        ),
    ] = None


@Parameter(name="*")
@dataclass(frozen=True)
class LaunchOptions(PlanOptions):
    """How a sweep is launched."""

    download: Download = False
    replace: Annotated[
        bool, Parameter(help="replace an earlier sweep that has this name and other stages")
    ] = False


FOLDERS, RUNS = FolderOptions(), RunsOptions()
LAUNCHER, PLAN, LAUNCH = LauncherOptions(), PlanOptions(), LaunchOptions()
"""Those of a command that is given none."""
