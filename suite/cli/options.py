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
        help="those of the sweep; `suite plan SWEEP --help` shows them",
    ),
]
ExplainWords = Annotated[
    str, Parameter(name="OPTIONS", allow_leading_hyphen=True, help="those of the steps, listed below")
]
LaunchedName = Annotated[str, Parameter(name="SWEEP", help="name of a launched sweep")]
Only = Annotated[str | None, Parameter(help="only stages whose name holds this pattern (* and ? allowed)")]
Name = Annotated[str | None, Parameter(help="another name for the sweep, to keep two variants apart")]
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
class LauncherOptions:
    """Which launcher, and its own options."""

    on: Annotated[
        str | None,
        Parameter(
            choices=list(LAUNCHERS),
            help="here (the default): each stage a process of this machine; torchrun: those of several ranks over as "
            "many GPUs; slurm: jobs of a cluster, which need nothing left alive here",
        ),
    ] = None
    cluster: Annotated[
        Path | None,
        Parameter(help="what a cluster is asked for, like slurm/cluster.toml; alone it means --on slurm"),
    ] = None
    workers: Annotated[
        Whole | None,
        Parameter(help="processes of this machine at a time (default: one a GPU, else one a core)"),
    ] = None

    @property
    def given(self) -> dict[str, object]:
        """The launcher's own options that were given."""
        own = {"workers": self.workers, "cluster": self.cluster}
        return {name: value for name, value in own.items() if value is not None}


@Parameter(name="*")
@dataclass(frozen=True)
class LaunchOptions(LauncherOptions):
    """How a sweep is launched."""

    gpus_per_run: Annotated[
        Whole | None,
        Parameter(help="ranks that share each training, instead of what the sweep says; not with --on here"),
    ] = None
    download: Download = False
    replace: Annotated[
        bool, Parameter(help="take the place of a sweep of other stages under the same name")
    ] = False


FOLDERS, LAUNCHER, LAUNCH = FolderOptions(), LauncherOptions(), LaunchOptions()
"""Those of a command that is given none."""
