"""The environment of a worker that `suite` starts."""

from __future__ import annotations

import os

from suite.record.provenance import ROOT


def worker_environment() -> dict[str, str]:
    """This process's, with the same code: a folder that holds a `suite` or `slurm` of somebody else may be the working
    folder, which Python would search first."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
