"""The sbatch scripts, as they are sent."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from fakes import ROOT
from fakes.cluster import CLUSTER
from fakes.user import SWEEP

from slurm import sbatch
from slurm.attempts import JobAttempt, Task
from slurm.cluster import Cluster, largest_array, read_cluster
from slurm.launcher import Slurm
from slurm.sender import Sender
from suite import sweeps
from suite.recipe import plan
from suite.recipe.errors import SuiteError
from suite.record.files import Folders, write_json
from suite.record.journal import read_events


def test_the_scripts_that_are_sent(tmp_path: Path) -> None:
    """Golden: two trainings of two nodes in one array, their recipes after each. `UPDATE=1` writes it anew."""
    golden = ROOT / "tests" / "golden" / "sbatch.txt"
    (tmp_path / "own.py").write_text(SWEEP)
    (tmp_path / "runs" / "slurm").mkdir(parents=True)
    (tmp_path / "runs" / "slurm" / "owner").write_text('"golden"')
    on_gpus = CLUSTER.replace('environment.SUITE_DEVICE = "cpu"\n', "")
    (tmp_path / "cluster.toml").write_text(
        on_gpus + 'partition = "gpu"\naccount = "lab"\nsetup = ["module load cuda"]\n'
        '[environment]\nHTTPS_PROXY = "http://proxy:3128"\n'
    )
    cluster = read_cluster(tmp_path / "cluster.toml")
    listed, _ = sweeps.find(str(tmp_path / "own.py")).stages(["--ranks", "8", "--seeds", "2"])
    with mock.patch.object(shutil, "which", "/SLURM/bin/{}".format):
        planned = Sender(Folders(tmp_path / "runs", tmp_path / "data"), cluster).planned(plan(listed), 1001)
    text = re.sub(r"/code/\w+", "/code/DIGEST", "\n".join(text for _, text in planned))
    text = text.replace(str(tmp_path), "/PLACE").replace(sys.executable, "/PYTHON")
    if os.environ.get("UPDATE"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


def asked(folder: Path, cluster: Cluster, avoid: tuple[str, ...] = ()) -> list[str]:
    written = sbatch.text(
        folder / "slurm" / "suite-x", 1, 1, (), cluster, Folders(folder, folder), folder, avoid
    )
    return [line.removeprefix("#SBATCH ") for line in written.splitlines() if line.startswith("#SBATCH")]


def test_options_of_the_cluster_file_are_added_and_take_the_place_of_the_suites(tmp_path: Path) -> None:
    cluster = Cluster(
        gpus_per_node=4,
        sbatch={"gres": "gpu:a100:4", "exclusive": True, "mem": False, "comment": "it's mine", "nice": 10},
        srun={"container-image": "/a b.sqsh", "cpus-per-task": 7},
    )
    words = asked(tmp_path, cluster)
    assert {"--gres=gpu:a100:4", "--exclusive", "--nice=10"} <= set(words)
    assert ["--comment=it's mine"] in [shlex.split(word) for word in words]
    assert not [word for word in words if word.startswith(("--mem", "--gpus-per-node"))]
    others = {"reservation": "lab", "mail-type": "END,FAIL", "licenses": "matlab:2", "exclude": "n7"}
    assert {f"--{name}={value}" for name, value in others.items()} <= set(
        asked(tmp_path, Cluster(partition="gpu,long", sbatch=others))
    )
    assert "--partition=gpu,long" in asked(tmp_path, Cluster(partition="gpu,long"))
    assert "--exclude=n7,n1" in asked(tmp_path, Cluster(sbatch={"exclude": "n7"}), avoid=("n1",))
    usual = asked(tmp_path, Cluster(gpus_per_node=4))
    assert "--gpus-per-node=1" in usual and "--mem=8000MB" in usual
    assert "--mem=8000MB" not in asked(tmp_path, Cluster(sbatch={"mem-per-cpu": "4G"}))
    srun = next(
        line
        for line in sbatch.text(
            tmp_path / "suite-x", 1, 1, (), cluster, Folders(tmp_path, tmp_path), tmp_path, ()
        ).splitlines()
        if line.startswith("exec srun")
    )
    assert "--container-image=/a b.sqsh" in shlex.split(srun) and "--cpus-per-task=7" in srun
    assert "--kill-on-bad-exit=1" in srun, "a rank that fails ends the others"


@pytest.mark.parametrize(
    "sbatch",
    [{"gpus": 0}, {"gpus-per-node": 0}, {"gpus-per-task": "0"}, {"gres": "gpu:0"}, {"gpus-per-node": "0"}],
)
def test_no_gpus_in_sbatch_are_none(tmp_path: Path, sbatch: dict[str, str | int]) -> None:
    """A job that was told to find a GPU, and had none, ended before its first stage."""
    cluster = Cluster(gpus_per_node=4, recipe={"sbatch": sbatch}).of(trains=False)
    [(name, value)] = sbatch.items()
    assert cluster.asked.gpus_per_node == 0
    assert [word for word in asked(tmp_path, cluster) if word.startswith(("--gpu", "--gres"))] == [
        f"--{name}={value}"
    ]


def test_no_memory_a_gpu_takes_the_place_of_that_of_a_rank(tmp_path: Path) -> None:
    words = asked(tmp_path, Cluster(sbatch={"mem-per-gpu": 0}))
    assert [word for word in words if word.startswith("--mem")] == ["--mem-per-gpu=0"], "sbatch takes one"


WORKS = """#!/bin/bash
printf '%s\\n' "${PYTHONPATH}" "${FROM_SETUP-}" "$(ulimit -c)" > seen
[ "${STATUS}" = 0 ] && echo 0 > "${MARK}"
exit "${STATUS}"
"""
"""In the place of srun."""

DECIDES = """#!/bin/bash
echo "$@" >> decided
printf '%s\\n' "$(command -v scontrol)" "${PYTHONHOME-}" > environment
[ "$2" = slurm.attempts ] && shift
echo 9 > "${MARK}"
exit 9
"""
"""In the place of Python, which is asked what becomes of a job that failed."""

SETUP = {
    "nothing": (),
    "errexit": ("set -euo pipefail",),
    "the whole of it": ("set -e", "set -o posix", "trap 'exit 0' ERR EXIT", "shopt -s failglob"),
    "a trap that exits well": ("trap 'exit 0' EXIT TERM",),
    "its end": ("exit 0",),
    "another program": ("exec true",),
    "a failing line": ("false",),
    "no more commands": ("set -n",),
    "names of its own": (
        "srun() { true; }",
        "python() { true; }",
        "readonly status=0 PYTHONPATH=/none",
        "unset ended",
    ),
    "aliases": ("shopt -s expand_aliases", "alias srun=true command=true exec=true"),
    "a quote that never ends": ("echo 'half",),
    "a block that never ends": ("if true; then",),
    "a parenthesis": (")",),
    "a document that never ends": ("cat <<END", "x"),
    "no place": ("cd /", "cd - > /dev/null", "exec > /dev/null 2>&1"),
    "return": ("return 0",),
    "its process group": ("trap 'kill 0' EXIT", "false || exit 1"),
    "its process group, without a chance": ("kill -KILL 0",),
}


def of_a_job(folder: Path, cluster: Cluster, status: int) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of a job whose ranks end with `status`, and what bash says to its script."""
    place, record = folder / "it's here", folder / "it's here" / "suite-x"
    record.mkdir(parents=True)
    for name, text in {"srun": WORKS, "python": DECIDES, "scontrol": "#!/bin/bash"}.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    with mock.patch.object(sys, "executable", str(place / "python")):
        text = sbatch.text(record, 1, 1, (), cluster, Folders(place, place), place / "code", ())
    names = {"SLURM_ARRAY_TASK_ID": "4", "SLURM_RESTART_COUNT": "2", "STATUS": str(status)}
    environment = {"PATH": f"{place}:{os.environ['PATH']}", "MARK": str(record / "ended-4.2"), **names}
    (place / "job.sh").write_text(text)
    how = {"cwd": place, "env": environment, "capture_output": True, "text": True, "timeout": 60}
    how |= {"start_new_session": True, "stdin": subprocess.DEVNULL}  # as SLURM starts it
    return place, subprocess.run(["bash", "job.sh"], **how)  # type: ignore[call-overload]


@pytest.mark.parametrize("status", [0, 1, 75])
@pytest.mark.parametrize("kind", SETUP)
def test_no_line_of_setup_changes_how_a_job_ends(tmp_path: Path, kind: str, status: int) -> None:
    """What failed is asked about, once: there it is queued again. Only what rank 0 has called done ends well."""
    setup = ("export FROM_SETUP=1", "ulimit -c 0", *SETUP[kind])
    place, done = of_a_job(tmp_path, Cluster(setup=setup), status)
    ran = (place / "seen").exists()
    asked = (place / "decided").read_text().splitlines() if (place / "decided").exists() else []
    assert len(asked) == (0 if ran and status == 0 else 1), done.stderr
    assert done.returncode == (0 if ran and status == 0 else 9), done.stderr
    if ran:
        path, *rest = (place / "seen").read_text().splitlines()
        assert path == str(place / "code") or "readonly" in str(SETUP[kind])
        assert rest == ["1", "0"], "what setup sets is there for the ranks"
        assert [line.split()[-1] for line in asked] == ([str(status)] if status else [])


@pytest.mark.parametrize("status", [0, 75])
@pytest.mark.parametrize(
    "environment",
    [
        {"ended": "/dev/null", "suite_ended": "/dev/null"},
        {"PATH": "/opt/x"},
        {"status": "0", "suite_status": "0", "suite_path": "/"},
        {"PYTHONPATH": "/opt/x", "PYTHONHOME": "/opt/x", "PYTHONSAFEPATH": ""},
        {"POSIXLY_CORRECT": "1", "BASH_ENV": "/dev/null", "IFS": "/"},
    ],
    ids=lambda names: next(iter(names)),
)
def test_nothing_in_environment_changes_how_a_job_ends(
    tmp_path: Path, environment: dict[str, str], status: int
) -> None:
    """The ranks have it. What becomes of the job is decided without, where SLURM's commands are found."""
    place, done = of_a_job(tmp_path, Cluster(environment=environment | {"FROM_SETUP": "x y"}), status)
    assert (place / "seen").read_text().splitlines()[:2] == [str(place / "code"), "x y"], done.stderr
    asked = (place / "decided").read_text().splitlines() if status else []
    assert done.returncode == (9 if status else 0), done.stderr
    assert [line.split()[-1] for line in asked] == ([str(status)] if status else [])
    if status:
        path, home = (place / "environment").read_text().splitlines()
        assert path == str(place / "scontrol") and home == os.environ.get("PYTHONHOME", "")


def test_a_job_whose_ranks_never_began_fails_and_one_that_is_done_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both come with the status 0, and nothing of rank 0."""
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "SLURM_RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    record, key = tmp_path / "slurm" / "suite-x" / "array.json", "0123456789abcdef"
    record.parent.mkdir(parents=True)
    write_json({"tasks": [[key]], "retries": {"code": 0}}, record)
    task = Task(record, 0, tmp_path)
    assert task.end(0) == 1
    [event] = read_events(tmp_path / key)
    assert (event["event"], event["cause"]) == ("failed", "code")
    assert event["error"].startswith("the lines of setup in the cluster file ended the job before its ranks")
    task.settle(1)
    assert (record.parent / "ended-0.1").read_text() == "1\n"
    write_json({"format": 1, "key": key, "top1": 1.0}, tmp_path / key / "outcome.json")
    assert task.end(0) == 0


def test_the_events_of_an_attempt_are_its_own_whatever_the_clock_says() -> None:
    attempt = JobAttempt(0, "7", "n1", 1e9, 0, {}, events={"a": 4})
    for seconds in (-3600, 3600):
        assert [attempt.has({"seq": seq, "time": 1e9 + seconds}, "a") for seq in (4, 5)] == [False, True]
    assert attempt.has({"seq": 1, "time": 0.0}, "b"), "a stage that had none before"
    older = JobAttempt(0, "7", "n1", 1e9, 0, {})
    assert [older.has({"seq": 9, "time": at}, "a") for at in (1e9 - 1, 1e9)] == [False, True]


def test_a_cluster_without_arrays_gets_each_job_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurm.cluster.ask", lambda *_: "MaxArraySize            = 0\nMaxJobCount = 9\n")
    assert largest_array() == 1
    (tmp_path / "own.py").write_text(SWEEP)
    listed, _ = sweeps.find(str(tmp_path / "own.py")).stages(["--seeds", "2"])
    sender = Sender(Folders(tmp_path / "runs", tmp_path), Cluster())
    planned = sender.planned(plan(listed), largest_array(), is_here=False)
    assert not [text for _, text in planned if "--array" in text]
    assert sorted(len(array.tasks) for array, _ in planned) == [1] * len(planned)
    assert sum(len(task) for array, _ in planned for task in array.tasks) == 6


def test_a_plan_shows_the_scripts_where_there_is_no_slurm_and_says_that_nothing_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "cluster.toml").write_text("minutes = 60\ngpus_per_node = 4\n[recipe]\nminutes = 20\n")
    (tmp_path / "own.py").write_text(SWEEP)
    listed, _ = sweeps.find(str(tmp_path / "own.py")).stages(["--seeds", "2"])
    made = Slurm(Folders(tmp_path / "runs", tmp_path), tmp_path / "cluster.toml")
    shown = made.preview(plan(listed))
    assert len(shown.jobs) == 3 and "not checked: there is no SLURM on this machine" in shown.total
    assert sorted(text.count("--time=20\n") for _, text in shown.jobs) == [0, 1, 1]
    with pytest.raises(SuiteError, match="there is no sinfo on this machine"):
        made.check(plan(listed))
