"""Uploads and registry calls that may fail without failing the sync.

The store may be S3 without credentials, or a folder of the server's disk; that costs no metric, and is tried again.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from suite.recipe.words import counted
from suite.record.secrets import without_secrets
from suite.track.artifact_folders import check_inside, check_is_no_link
from suite.track.mlflow_run import MlflowRun

PATIENCE_SECONDS = 10.0
"""How long the artifact store may take to refuse files; the others then wait for the next sync."""


class Uploads:
    """Those of one sync; `lines` gets one for each kind of thing that MLflow refused. `runs` is the runs folder where
    its database says where files are written, which is checked."""

    def __init__(self, client: Any, experiment: str, lines: dict[str, str], runs: Path | None = None) -> None:
        self._client, self._experiment, self.lines, self._runs = client, experiment, lines, runs
        self._spent, self._files, self._first = 0.0, 0, ""

    @contextmanager
    def reported(self, kind: str, what: str) -> Iterator[None]:
        """What goes wrong as a line; the next sync tries again."""
        try:
            yield
        except Exception as error:  # a store raises what its library has: ImportError, botocore's, OSError
            self.lines[kind] = f"MLflow refused {what}: {self.why(error)}; the next sync tries again"

    def why(self, error: Exception) -> str:
        """In a line. Raises what MLflow says where it is away altogether: that is no refusal."""
        self._client.get_experiment(self._experiment)
        first = (without_secrets(str(error)).strip().splitlines() or [""])[0][:300]  # tags are for all
        return f"{type(error).__name__}: {first}" if first else type(error).__name__

    def check_place(self, run: MlflowRun, names: Iterable[str] = ()) -> None:
        """Raise SuiteError where the database in the runs folder has the files `names` of a run elsewhere. It is asked
        anew: a trigger in it may have changed what it answered when the run was made."""
        if self._runs is not None:
            address = self._client.get_run(run.run_id).info.artifact_uri
            folder = check_inside(address, self._runs, f"run {run.name} ({run.run_id})")
            for name in names:
                check_is_no_link(folder / name)

    def upload(self, run: MlflowRun, files: Mapping[str, bytes]) -> dict[str, str]:
        """Log the files, by name, from copies that nobody changes meanwhile; gives why not, of those refused. Raises
        SuiteError as `check_place` does."""
        self.check_place(run, files)
        refused: dict[str, str] = {}
        for name, content in files.items():
            began = time.monotonic()
            if self._spent > PATIENCE_SECONDS:
                refused[name] = "not tried: others were refused"
                continue
            try:
                with tempfile.TemporaryDirectory() as folder:
                    (Path(folder) / name).write_bytes(content)
                    self._client.log_artifact(run.run_id, str(Path(folder) / name))
            except Exception as error:
                refused[name] = self.why(error).replace("; ", ", ")
                self._spent += time.monotonic() - began
        for name, why in refused.items():
            self._first = self._first or f"{name} of {run.name}: {why}"
            self._files += 1
            more = f"; missing beside it: {counted(self._files - 1, 'file')}" if self._files > 1 else ""
            self.lines["files"] = f"MLflow has no {self._first}{more}; the next sync tries again"
        return refused
