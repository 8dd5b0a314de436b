"""SLURM's commands get words that the system takes, and what they print is read."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from slurm import client, end_causes
from slurm.arrays import Array
from slurm.client import expanded, number_in
from slurm.cluster import Cluster, check_cluster, without
from slurm.sender import Sender
from suite.recipe.errors import SuiteError
from suite.record.files import Folders


@pytest.mark.parametrize(
    ("identity", "tasks"),
    [
        ("12", ["12"]),
        ("12_3", ["12_3"]),
        ("5_[0-2,7]", ["5_0", "5_1", "5_2", "5_7"]),
        ("6_[0-6:3]", ["6_0", "6_3", "6_6"]),
        ("12_[0-1,7%4]", ["12_0", "12_1", "12_7"]),
        ("5_[0-1,...,48-50...]", ["5_0", "5_1"]),
    ],
)
def test_the_short_forms_of_arrays_are_read(identity: str, tasks: list[str]) -> None:
    assert expanded(identity) == tasks


def pretend(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Put lines of bash in the place of SLURM's commands."""
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_7000_arrays_are_asked_for_in_words_that_the_system_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux takes words of 131,071 bytes; the names of 5,700 arrays are more."""
    names = [f"suite-{number:016x}" for number in range(7_000)]
    words = "for word; do case $word in --name=*|--jobs=*) listed=${word#*=};; esac; done"
    each = words + "; printf '%%s\\n' \"$listed\" | sed 's/[^,]*/&|&|%s|None|n1/g; s/,/\\n/g'"
    pretend(tmp_path, monkeypatch, squeue=each % "RUNNING", sacct=each % "COMPLETED")
    assert sorted(client.queued(iter(names))) == names
    assert sorted(client.ended(names)) == names
    numbers = [str(10_000_000 + number) for number in range(14_000)]
    assert sorted(client.ended(ids=iter(numbers))) == numbers
    assert client.queued([]) == client.ended() == {}


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("4711\n", "4711"),
        ("4711;cluster-b\n", "4711"),
        ("----\n4 nodes are down today\n2026\n----\n4711\n", "4711"),
        ("4711\r\n", "4711"),
        ("", None),
        ("\n", None),
        ("Submitted batch job 4711\n", None),
        ("4711 \u0663\n\u0663\n", None),
    ],
)
def test_the_number_of_a_job_is_found_in_what_sbatch_prints(answer: str, number: str | None) -> None:
    assert number_in(answer) == number


def test_what_a_site_prints_beside_an_answer_is_passed_over_in_any_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    greeting = "printf '* gr\\xfc\\xdfe | von | hpc *\\n\\n'; printf 'Kontingent \\xfcberschritten\\n' >&2"
    job = "echo '7_0|suite-x|RUNNING|None|n1'"
    sinfo = (
        'case "$*" in *%l*) echo "gpu|site-specific|2|gpu:4";; *%P*) echo "gpu*";; *%T*) echo n1 idle;; '
        "*) echo n1 gpu; echo n2 gpu;; esac"
    )
    scripts = {"squeue": job, "sacct": job.replace("RUNNING", "FAILED"), "sinfo": sinfo}
    pretend(tmp_path, monkeypatch, **{name: f"{greeting}; {text}" for name, text in scripts.items()})
    assert [job.state for job in client.queued(["suite-x"]).values()] == ["RUNNING"]
    assert [job.state for job in client.ended(["suite-x"]).values()] == ["FAILED"]
    wanted = Cluster(partition="gpu", gpus_per_node=4)
    check_cluster(wanted, 2)
    assert without({"n1"}, wanted, 1) == ["n1"] and end_causes.at_fault("n1") == "n1"
    pretend(tmp_path, monkeypatch, squeue=f"{greeting}; exit 1")
    with pytest.raises(SuiteError, match="squeue: Kontingent \ufffdberschritten"):
        client.queued(["suite-x"])


@pytest.mark.parametrize("known", [True, False])
def test_an_answer_without_a_number_has_the_job_looked_up_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    array = Array((("0123456789abcdef",), ("fedcba9876543210",)), 1, "me")
    listed = shlex.quote(f"4711_0|{array.name}|PENDING|None|\n4711_1|{array.name}|PENDING|None|\n")
    pretend(
        tmp_path, monkeypatch, sbatch="echo welcome", sacct="", squeue=f"printf {listed if known else ''}''"
    )
    sender = Sender(Folders(tmp_path, tmp_path), Cluster())
    if known:
        assert sender._send(array, "#!/bin/bash\n", 0).task_id(1) == "4711_1"
        assert [one.job_id for one in sender.arrays()] == ["4711"]
    else:
        with pytest.raises(
            SuiteError, match="sbatch gave no job's number but 'welcome', and squeue has no job suite-"
        ):
            sender._send(array, "#!/bin/bash\n", 0)
        assert [one.job_id for one in sender.arrays()] == [None], "which the next launch looks up again"
        assert sender.adopt() == []
