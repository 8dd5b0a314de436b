"""`slurm/local/cluster` is a real SLURM: up in seconds, it runs, limits, kills and loses jobs as a cluster does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.cluster import COMMAND, Cluster, traces
from fakes.user import OUTSIDE
from fakes.waiting import limit, until


def refused(*arguments: str | Path, **environment: str) -> str:
    """What the command says when it fails."""
    done = subprocess.run(
        [COMMAND, *arguments], env=OUTSIDE | environment, capture_output=True, text=True, timeout=limit(99)
    )
    assert done.returncode != 0, done.stdout + done.stderr
    return done.stderr


@pytest.fixture
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A folder for one more cluster, which is down in the end."""
    second = Cluster(tmp_path_factory.mktemp("second"))
    yield second
    second.manage("down")
    assert traces(second.folder) == []


def test_four_nodes_of_8_cpus_and_4_gpus_are_idle(cluster: Cluster) -> None:
    nodes = cluster("sinfo --noheader --Node --partition=main --format", "%N %c %G %T").splitlines()
    assert nodes == [f"n{i} 8 gpu:4 idle" for i in (1, 2, 3, 4)]
    assert all(f"n{i} " in cluster.manage("status") for i in (1, 2, 3, 4))


def test_up_on_a_running_cluster_says_so_and_what_a_shell_needs(cluster: Cluster) -> None:
    said = cluster.manage("up")
    assert f"a cluster of 4 nodes already runs in {cluster.folder}\n" in said
    assert f"export SLURM_CONF={cluster.folder}/etc/slurm.conf\n" in said


def test_the_jobs_of_an_array_run_on_all_nodes_and_accounting_has_each_completed(cluster: Cluster) -> None:
    job = cluster.submit("--array=0-3 --exclusive", "hostname; sleep 1")
    cluster.ends(job, *4 * ["COMPLETED"])
    nodes = [cluster.output(f"{job}_{i}").strip() for i in range(4)]
    assert sorted(nodes) == ["n1", "n2", "n3", "n4"]


def test_jobs_that_share_a_node_get_different_gpus(cluster: Cluster) -> None:
    job = cluster.submit("--array=0-1 --nodelist=n1 --gpus-per-node=2", "echo $CUDA_VISIBLE_DEVICES; sleep 1")
    cluster.ends(job, "COMPLETED", "COMPLETED")
    assert sorted(cluster.output(f"{job}_{i}").strip() for i in range(2)) == ["0,1", "2,3"]


def test_a_step_of_a_job_has_four_tasks_on_each_of_two_nodes(cluster: Cluster) -> None:
    job = cluster.submit(
        "--nodes=2 --ntasks-per-node=4 --gpus-per-node=4",
        "srun sh -c 'echo $SLURM_PROCID $SLURM_LOCALID $(hostname) $CUDA_VISIBLE_DEVICES'",
    )
    cluster.ends(job, "COMPLETED")
    tasks = sorted(cluster.output(job).splitlines())
    first, second = sorted({task.split()[2] for task in tasks})
    expected = [f"{rank} {rank % 4} {first if rank < 4 else second} 0,1,2,3" for rank in range(8)]
    assert tasks == expected


@pytest.mark.long
def test_the_job_of_a_node_that_lost_power_is_requeued_and_completes_elsewhere(cluster: Cluster) -> None:
    job = cluster.submit(
        "--open-mode=append --job-name=on-a-lost-node",
        "hostname; [ $SLURM_RESTART_COUNT ] || sleep 600; echo restarted",
    )
    until(lambda: cluster.output(job) != "")
    # seconds later: SLURM 24 takes what a node says just then for that of a node come back
    cluster.known("on-a-lost-node")
    lost = cluster.output(job).strip()
    cluster.manage("node-kill", lost)
    cluster.lose(lost)
    cluster.ends(job, "NODE_FAIL", "COMPLETED")
    first, second, last = cluster.output(job).split()
    assert first == lost != second and last == "restarted"
    cluster.manage("node-start", lost)
    until(cluster.idle)


def test_a_job_survives_its_slurmd(cluster: Cluster) -> None:
    job = cluster.submit("--nodelist=n2", "echo began; sleep 2; echo ended")
    until(lambda: cluster.output(job) != "")
    cluster.manage("slurmd-kill", "n2")
    cluster.manage("slurmd-start", "n2")
    cluster.ends(job, "COMPLETED")
    assert cluster.output(job).split() == ["began", "ended"]


@pytest.mark.long
def test_a_controller_that_was_killed_and_started_again_keeps_its_queue(cluster: Cluster) -> None:
    running = cluster.submit("", "sleep 8")
    held = cluster.submit("--hold --job-name=kept-over-a-crash", "true")
    cluster.known("kept-over-a-crash")
    cluster.manage("controller-kill")
    cluster.manage("controller-start")
    assert (cluster.state(running), cluster.state(held)) == ("RUNNING", "PENDING")
    cluster(f"scontrol release {held}")
    cluster.ends(held, "COMPLETED")
    cluster.ends(running, "COMPLETED")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--partition=short --time=11", "Requested time limit is invalid"),
        ("--nodes=5", "Node count specification invalid|More processors requested than permitted"),
        ("--gpus-per-node=5", "Requested node configuration is not available"),
        ("--array=0-101", "Invalid job array specification"),
    ],
)
def test_what_can_never_run_is_refused_at_submission(cluster: Cluster, options: str, reason: str) -> None:
    done = cluster.attempt(f"sbatch {options}", "--wrap", "true")
    assert done.returncode != 0 and any(text in done.stderr for text in reason.split("|")), done.stderr


def test_a_job_after_one_that_fails_is_cancelled(cluster: Cluster) -> None:
    first = cluster.submit("--hold", "false")
    second = cluster.submit(f"--dependency=afterok:{first}", "true")
    cluster(f"scontrol release {first}")
    cluster.ends(first, "FAILED")
    until(lambda: cluster.recorded(second)[0].startswith("CANCELLED"))
    assert cluster.output(second) == "", "it never ran"


@pytest.mark.long
def test_a_job_over_its_memory_is_killed_and_accounting_says_so(cluster: Cluster) -> None:
    program = "import time; block = b'1' * 400_000_000; time.sleep(600)"
    job = cluster.submit("--mem=100", f'{sys.executable} -c "{program}"')
    until(lambda: cluster.recorded(job)[0] in ("FAILED", "OUT_OF_MEMORY"), lambda: str(cluster.recorded(job)))
    assert "exceeded memory limit" in cluster.output(job)
    [used] = cluster(f"sacct --noheader --parsable2 --jobs={job}.batch --format=MaxRSS --noconvert").split()
    assert int(used) > 100 << 20


@pytest.mark.long
def test_high_preempts_low_which_gets_its_signal_and_runs_again_later_and_does_not_preempt_main(
    cluster: Cluster,
) -> None:
    script = (
        "trap 'echo saving; scontrol requeue $SLURM_JOB_ID' USR1; echo began; "
        "[ $SLURM_RESTART_COUNT ] || { sleep 600 & wait; }"
    )
    low = cluster.submit(
        "--partition=low --nodelist=n1 --exclusive --signal=B:USR1@60 --open-mode=append --time=60", script
    )
    main = cluster.submit("--partition=main --nodelist=n2 --exclusive", "sleep 600")
    until(lambda: cluster.output(low) != "" and cluster.state(main) == "RUNNING")
    high = [
        cluster.submit(f"--partition=high --nodelist={node} --exclusive", "true") for node in ("n1", "n2")
    ]
    cluster.ends(high[0], "COMPLETED")
    assert (cluster.state(main), cluster.state(high[1])) == ("RUNNING", "PENDING")
    cluster(f"scancel {main}")
    cluster.ends(high[1], "COMPLETED")
    until(lambda: cluster.recorded(low)[-1] == "COMPLETED", lambda: str(cluster.recorded(low)))
    lines = [line for line in cluster.output(low).splitlines() if "slurmstepd" not in line]
    assert lines[:3] == ["began", "saving", "began"]  # SLURM 24 preempts it twice


@pytest.mark.long
def test_a_second_cluster_works_beside_the_first_and_down_leaves_no_process_no_mount_and_no_file_of_its_own(
    cluster: Cluster, second: Cluster
) -> None:
    second.manage("up", "1")
    assert second("srun hostname") == "n1" == cluster("srun --nodelist=n1 hostname")
    job = second.submit("", "echo began; setsid sleep 600 & sleep 600")
    until(lambda: second.output(job) != "")
    assert len(traces(second.folder)) > 10
    assert "no cluster runs" in second.manage("down")
    assert traces(second.folder) == []
    assert [file.name for file in second.folder.iterdir()] == [f"{job}.out"]
    assert "no cluster runs" in second.manage("down")
    assert cluster.idle()


def test_an_up_that_fails_says_why_and_leaves_no_process(second: Cluster, tmp_path: Path) -> None:
    (tmp_path / "slurmdbd").write_text("#!/bin/sh\necho 'fatal: no storage today' >&2; exit 1\n")
    (tmp_path / "slurmdbd").chmod(0o755)
    said = refused("up", second.folder, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert "fatal: no storage today\ncluster: slurmdbd does not work" in said and "logs are in" in said
    assert traces(second.folder) == []


@pytest.mark.long
def test_an_up_that_is_interrupted_leaves_no_process_and_the_next_one_works(second: Cluster) -> None:
    starting = subprocess.Popen([COMMAND, "up", second.folder], env=OUTSIDE, stderr=subprocess.PIPE)
    until(lambda: (second.folder / "run" / "mariadbd.pid").exists())
    starting.send_signal(signal.SIGTERM)
    starting.communicate(timeout=limit(30))
    assert starting.returncode != 0 and traces(second.folder) == []
    second.manage("up", "1")
    assert second("srun hostname") == "n1"


def test_what_is_missing_and_what_to_do_are_said(tmp_path: Path) -> None:
    def pretending(program: str, answer: str) -> str:
        file = tmp_path / program / program
        file.parent.mkdir()
        file.write_text(f"#!/bin/sh\n{answer}\n")
        file.chmod(0o755)
        return f"{file.parent}:{os.environ['PATH']}"

    state = tmp_path / "state"
    assert "needs Linux" in refused("up", state, PATH=pretending("uname", "echo Darwin"))
    assert "need root: sudo" in refused("up", state, PATH=pretending("id", "echo 1000"))
    assert "needs to be privileged" in refused("up", state, PATH=pretending("unshare", "exit 1"))
    hidden = f"mount -t tmpfs tmpfs /usr/sbin && exec {COMMAND} up {state}"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", hidden], capture_output=True, text=True)
    assert done.returncode != 0 and "not installed: slurmctld slurmd slurmdbd munged mariadbd;" in done.stderr
    assert "apt-get install --no-install-recommends slurmctld" in done.stderr
    assert not state.exists()


def test_wrong_arguments_are_refused_with_a_reason(
    tmp_path_factory: pytest.TempPathFactory, cluster: Cluster
) -> None:
    tmp_path = tmp_path_factory.mktemp("wrong")
    (tmp_path / "mine").write_text("precious")
    assert "holds something else" in refused("up", tmp_path)
    assert (tmp_path / "mine").read_text() == "precious"
    assert "at most 75" in refused("up", tmp_path / ("long" * 20))
    assert "at most 75" in refused("up", tmp_path / "with space")
    assert "1 to 38 nodes, not 39" in refused("up", tmp_path / "new", "39")
    assert "no cluster runs" in refused("status", tmp_path / "none")
    assert "no cluster runs" in refused("controller-kill", tmp_path / "none")
    assert "n9 does not run" in refused("node-kill", "n9", cluster.folder)
    assert "has no n9" in refused("node-start", "n9", cluster.folder)
    assert "n1 already runs" in refused("node-start", "n1", cluster.folder)
    assert "slurmd-n1 already runs" in refused("slurmd-start", "n1", cluster.folder)
    assert "slurmctld already runs" in refused("controller-start", cluster.folder)
    assert "cluster up [DIR] [NODES]" in refused("fly")
