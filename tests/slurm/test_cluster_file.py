"""A cluster.toml is checked value by value before anything is sent, and an error names the line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fakes import ROOT
from hypothesis import given
from hypothesis import strategies as st

from slurm import sbatch as script
from slurm.cluster import Cluster, check_cluster, read_cluster
from slurm.cluster_file import CHECKS, line_of
from slurm.launcher import Slurm
from suite.recipe.errors import SuiteError
from suite.record.files import Folders

ABOVE = '# What the cluster is asked for.\npartition = "main"\n\n'
"""Three lines that are right."""


def read(folder: Path, text: str | bytes) -> Cluster:
    file = folder / "cluster.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_cluster(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('setup = "module load cuda"', 'line 4: setup must be a list of lines of text, got \'module load cuda\'; '
         'write setup = ["module load cuda"]'),
        ("setup = [\n  'module load cuda',\n  1,\n]", "line 4: setup must be a list of lines of text"),
        ('memory_gb_per_rank = "16G"', "line 4: memory_gb_per_rank must be a number above 0 without quotes or unit"),
        ("memory_gb_per_rank = nan", "line 4: memory_gb_per_rank must be a number above 0"),
        ("memory_gb_per_rank = inf", "line 4: memory_gb_per_rank must be a number above 0"),
        ("memory_gb_per_rank = -4", "line 4: memory_gb_per_rank must be a number above 0"),
        ("memory_gb_per_rank = true", "line 4: memory_gb_per_rank must be a number above 0"),
        ("retries = 3", "line 4: retries must be a table, got 3; write [retries] and below it NAME = VALUE"),
        ("[retries]\ntime = 2\nnode = true", "line 6: retries.node must be a whole number"),
        ("[retries]\ntime = 2\n\n# no more\nnode = -1", "line 8: retries.node must be a whole number from 0"),
        ("retries = { node = 1, colour = 2 }", "line 4: retries.colour is unknown; there is time, preempted"),
        ("retries.node = 1.5", "line 4: retries.node must be a whole number"),
        ('minutes = "4:00:00"', "line 4: minutes must be a whole number without quotes or point, got '4:00:00'"),
        ("minutes = 60.0", "line 4: minutes must be a whole number without quotes or point, got 60.0"),
        ("minutes = true", "line 4: minutes must be a whole number"),
        ("minutes = 0", "line 4: minutes must be a whole number from 1 to 1000000, got 0"),
        ("minutes = -5", "line 4: minutes must be a whole number from 1 to 1000000, got -5"),
        ("parallel = 99999999999999999999", "line 4: parallel must be a whole number from 1 to 1000000"),
        ("gpus_per_node = -1", "line 4: gpus_per_node must be a whole number from 0"),
        ("cpus_per_rank = 2026-11-29", "line 4: cpus_per_rank must be a whole number without quotes"),
        ("memory_gb_per_rank = 1e-9", "line 4: memory_gb_per_rank must be from 0.01 to 1000000, got 1e-09"),
        ("memory_gb_per_rank = 1e300", "line 4: memory_gb_per_rank must be from 0.01 to 1000000"),
        ('setup = ["module load cuda", "if true; then"]', "line 4: setup is nothing that bash can run: line 3: syntax "
         "error: unexpected end of file"),
        ("setup = [\"echo 'half\"]", "line 4: setup is nothing that bash can run: line 1: unexpected EOF while"),
        ('setup = ["a\\u0000b"]', "line 4: setup holds a NUL character"),
        ('[environment]\nA = "a\\u0000b"', "line 5: environment.A holds a NUL character"),
        ("warning_seconds = 15000", "line 4: warning_seconds leaves a job no time"),
        ("gpus_per_node = 2", "line 4: gpus_per_node 2 is less than ranks_per_node 4"),
        ('constraint = ["a", "b"]', "line 4: constraint must be text in quotes"),
        ("account = true", "line 4: account must be text in quotes, got True"),
        ('account = ""', "line 4: account must be one word, got ''; write it, or leave the line out"),
        ('account = "lab\\n#SBATCH --exclusive"', "line 4: account must be one word"),
        ('environment = "A=1"', "line 4: environment must be a table, got 'A=1'"),
        ("[environment]\nA = 'x'\nOMP_NUM_THREADS = 4", "line 6: environment.OMP_NUM_THREADS must be text in quotes"),
        ("[environment]\nX = true", "line 5: environment.X must be text in quotes, got True"),
        ('[environment]\n"A B" = "1"', "line 5: environment.A B is no name of an environment variable"),
        ('[environment]\nUID = "0"', "line 5: environment.UID is set by bash or SLURM; leave the line out"),
        ('[environment]\nSLURM_ARRAY_TASK_ID = "0"', "line 5: environment.SLURM_ARRAY_TASK_ID is set by bash or"),
        ("sbatch = 'x'", "line 4: sbatch must be a table"),
        ("[sbatch]\ngres = 'gpu:4'\nMem = 1", "line 6: sbatch.Mem is no long option"),
        ("[sbatch]\n--mem = 1", "line 5: sbatch.--mem is no long option; write its name without the leading --"),
        ("[sbatch]\nrequeue = false", "line 5: sbatch.requeue is set by the suite; leave the line out"),
        ("[sbatch]\nwait = true", "line 5: sbatch.wait is set by the suite"),
        ("[srun]\noutput = 'x'", "line 5: srun.output is set by the suite"),
        ("[sbatch]\nmem = 1.5", "line 5: sbatch.mem must be text, a whole number, true or false, got 1.5"),
        ('[sbatch]\ncomment = "a\\n#SBATCH --x"', "line 5: sbatch.comment must be text, a whole number"),
        ("[sbatch]\nmem-per-cpu = -4", "line 5: sbatch.mem-per-cpu must be a size such as 4000, \"4000M\" or"),
        ("[srun]\nmem = '4 GB'", "line 5: srun.mem must be a size"),
        ('[sbatch]\naccount = ""', "line 5: sbatch.account must not be empty, got ''; write it, or leave the line"),
        ('[sbatch]\nreservation = "a b"', "line 5: sbatch.reservation must be one word, got 'a b'"),
        ('[sbatch]\ncomment = "  "', "line 5: sbatch.comment must not be empty"),
        ('[sbatch]\ntime = "bogus"', 'line 5: sbatch.time must be minutes, "hours:minutes:seconds" or "days-hours"'),
        ("[sbatch]\ntime = 3", "line 5: sbatch.time leaves a job no time: of its minutes (3)"),
        ("[sbatch]\nexclude = true", 'line 5: sbatch.exclude needs a value, got true; write exclude = "..."'),
        ("[sbatch]\ngres = 4", 'line 5: sbatch.gres must be names and numbers such as "gpu:a100:4", got 4'),
        ("[sbatch]\ngres = 'gpu:a100:2'", "line 5: sbatch.gres 2 is less than ranks_per_node 4; each rank has a GPU"),
        ("[sbatch]\ngpus-per-node = 'x'", "line 5: sbatch.gpus-per-node must be a number, or a type and a number"),
        ("[sbatch]\ncpus-per-task = 0", "line 5: sbatch.cpus-per-task must be a whole number from 1, got 0"),
        ("[sbatch]\nthreads-per-core = -1", "line 5: sbatch.threads-per-core must not be below 0, got -1"),
        ('[sbatch]\ncomment = "a\\rb"', "line 5: sbatch.comment must be text, a whole number"),
        ("[sbatch]\nno-requeu = true", "line 5: sbatch.no-requeu is short for no-requeue, which is set by the suite"),
        ("[sbatch]\narra = '0-5'", "line 5: sbatch.arra is short for array, which is set by the suite; leave the"),
        ("[sbatch]\ndepend = 'afterok:1'", "line 5: sbatch.depend is short for dependency, which is set by the"),
        ("[srun]\nkill-on-bad-exit = 0", "line 5: srun.kill-on-bad-exit is set by the suite; leave the line out"),
        ("[srun]\nkill-on-bad = 0", "line 5: srun.kill-on-bad is short for kill-on-bad-exit, which is set by the"),
        ("[sbatch]\nno-kill = true", "line 5: sbatch.no-kill is set by the suite"),
        ("[srun]\ntime = 1", "line 5: srun.time is set by the suite"),
        ("[recipe.srun]\nti = 1", "line 5: recipe.srun.ti is short for time, which is set by the suite"),
        ("[sbatch]\ntime = 0", "line 5: sbatch.time must be a whole number from 1"),
        ('account = "lab\\u200b"', "line 4: account must be one word, got 'lab\\u200b'"),
        ('account = "\\u001b[31mlab"', "line 4: account must be one word"),
        ("minutes = " + "9" * 5000, "is not TOML: Exceeds the limit (4300 digits)"),
        ("setup = " + "[" * 9999 + "]" * 9999, "is not TOML: "),
        ("[sbatch]\nclusters = 'b'", "line 5: sbatch.clusters is set by the suite"),
        ("[sbatch]\npart = 'b'", "line 5: sbatch.part is short for partition; write that"),
        ("[recipe]\n[recipe.sbatch]\nmem = 'x'", "line 6: recipe.sbatch.mem must be a size"),
        ("[training.srun]\noutput = 'x'", "line 5: training.srun.output is set by the suite"),
        ("[training]\nsrun = 3", "line 5: training.srun must be a table"),
        ("[training.sbatch]\ntime = '3:00'", "line 5: training.sbatch.time leaves a job no time"),
        ("[training]\nsetup = []", "line 5: training.setup cannot be set here; there is account, constraint"),
        ("[recipe]\nminutes = '5'", "line 5: recipe.minutes must be a whole number"),
        ("[recipe]\nminutes = 1", "line 5: recipe.minutes leaves a job no time"),
        ("colour = 1", "line 4: colour is unknown; there is account, constraint"),
        ("minutes = ", "is not TOML: Invalid value (at line 4, column 11)"),
        (ABOVE.encode() + b'account = "l\xe4b"\n', "line 4: it is not UTF-8; save it as UTF-8"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_its_line_and_what_to_write(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(SuiteError) as refused:
        read(tmp_path, text if isinstance(text, bytes) else ABOVE + text + "\n")
    assert str(refused.value).startswith(str(tmp_path / "cluster.toml"))
    assert message in str(refused.value)


def test_every_kind_of_right_value_is_read(tmp_path: Path) -> None:
    text = 'memory_gb_per_rank = 16\nsetup = [\n "a",\n "b # c",\n]\nconstraint = "a&b"\n'
    text += '[retries]\nnode = 0\n[environment]\nX = ""\n'
    found = read(tmp_path, ABOVE + text)
    assert found == Cluster(
        partition="main", memory_gb_per_rank=16, setup=("a", "b # c"), constraint="a&b", retries={"node": 0},
        environment={"X": ""},
    )  # fmt: skip
    assert read_cluster(ROOT / "slurm" / "cluster.toml").memory_gb_per_rank == 16
    windows = b"\xef\xbb\xbf" + b'account = "l\xc3\xa4b"\r\nsetup = ["shopt -s extglob", "ls !(*.o)"]\r\n'
    assert read(tmp_path, windows).account == "l\u00e4b"


def test_a_job_that_trains_and_any_other_may_ask_for_different_things(tmp_path: Path) -> None:
    found = read(
        tmp_path, "minutes = 60\n[training]\nminutes = 600\n[recipe]\nqos = 'short'\ngpus_per_node = 4\n"
    )
    assert (found.of(trains=True).minutes, found.of(trains=False).minutes) == (600, 60)
    assert (found.of(trains=True).qos, found.of(trains=False).qos) == (None, "short")
    assert found.of(trains=False).gpus_per_node == 4 and found.gpus_per_node == 0
    assert Cluster().of(trains=True) == Cluster()


def options(
    cluster: Cluster, trains: bool, of: str = "gres|gpus|exclusive|mem|cpu-bind|time|DEVICE"
) -> list[str]:
    """What a job's script asks sbatch and srun for, of the options that are named."""
    place = Path("/runs")
    text = script.text(
        place / "suite-x", 1, 1, (), cluster.of(trains), Folders(place, place), place / "code", ()
    )
    return sorted(re.findall(rf"(?:--|SUITE_)(?:{of})[^\s]*", text))


def test_what_sbatch_asks_for_can_be_left_out_for_some_jobs(tmp_path: Path) -> None:
    all_of_it = """
gpus_per_node = 4
[sbatch]
gres = "gpu:a100:4"
exclusive = true
[srun]
cpu-bind = "none"
"""
    usual = [
        "--cpu-bind=none",
        "--exclusive",
        "--gres=gpu:a100:4",
        "--mem=8000MB",
        "--time=240",
        "SUITE_DEVICE=cuda",
    ]
    assert options(read(tmp_path, all_of_it), trains=True) == usual
    found = read(
        tmp_path,
        all_of_it
        + "[recipe]\ngpus_per_node = 0\nminutes = 20\n[recipe.sbatch]\nexclusive = false\nmem = false\n"
        "[recipe.srun]\ncpu-bind = false\n[training.sbatch]\ngres = false\ntime = '1-0'\n",
    )
    assert options(found, trains=False) == ["--time=20"]
    assert options(found, trains=True) == [
        "--cpu-bind=none", "--exclusive", "--gpus-per-node=1", "--mem=8000MB", "--time=1-0", "SUITE_DEVICE=cuda",
    ]  # fmt: skip
    assert found.of(trains=True).asked.minutes == 1440
    others = read(tmp_path, "[sbatch]\ngres = 'gpu:4,lscratch:10'\nmem = '9G'\n[recipe]\ngpus_per_node = 0")
    assert options(others, trains=False) == ["--gres=lscratch:10", "--mem=9G", "--time=240"]
    one = read(
        tmp_path,
        "ranks_per_node = 1\n[sbatch]\ngres = 'gpu:4,lscratch:10'\nmem = '9G'\n[recipe]\ngpus_per_node = 1",
    )
    assert {"--gpus-per-node=1", "--gres=lscratch:10"} <= set(options(one, trains=False)), (
        "no GPU stands in gres"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[sbatch]\npartition = 'gpu'\ngres = 'gpu:a100:4'", ""),
        ("partition = 'cpu'\n[sbatch]\npartition = 'gpu'", ""),
        ("[sbatch]\npartition = 'nowhere'", "there is no partition 'nowhere'; there is cpu, gpu"),
        ("minutes = 30\n[sbatch]\ntime = '1-0'", "minutes 1440 is over partition cpu's limit of 60"),
        ("[sbatch]\ntime = '1:00:00'", ""),
        (
            "minutes = 30\n[sbatch]\ngres = 'gpu:a100:8'",
            "gpus_per_node 8 is more than the 0 that a node of cpu has",
        ),
        (
            "[sbatch]\npartition = 'gpu'\ngpus-per-task = 2",
            "gpus_per_node 8 is more than the 4 that a node of gpu",
        ),
        (
            "[sbatch]\nnice = -5\ncomment = \"it's $(id)\"\ntime = 60\nlicenses = 'a:2'\nexclusive = 'user'",
            "",
        ),
    ],
)
def test_what_sbatch_asks_for_is_what_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, complaint: str
) -> None:
    """On a cluster whose default partition has no GPUs and ends jobs after an hour; the other has four a node."""
    rows = "cpu|1:00:00|4|(null)\ngpu|infinite|4|gpu:4\n"
    monkeypatch.setattr("slurm.cluster.ask", lambda *words: "cpu*\ngpu\n" if "--format=%P" in words else rows)
    found = read(tmp_path, text)
    assert Slurm(Folders(tmp_path, tmp_path), tmp_path / "cluster.toml").on_gpu == (
        "gres" in text or "task" in text
    )
    if complaint:
        with pytest.raises(SuiteError, match=re.escape(complaint)):
            check_cluster(found, 1)
    else:
        check_cluster(found, 1)


def test_every_field_of_a_cluster_has_a_check() -> None:
    assert {field.type for field in Cluster.__dataclass_fields__.values()} == set(CHECKS)


@given(
    st.dictionaries(
        st.sampled_from(list(Cluster.__dataclass_fields__)),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=4,
        ),
    )
)
def test_whatever_a_value_is_it_is_taken_or_refused_as_a_user_can_mend_it(values: dict[str, object]) -> None:
    try:
        made = Cluster(**values)  # type: ignore[arg-type]
    except SuiteError:
        return
    assert all(isinstance(line, str) for line in made.setup) and not isinstance(made.setup, str)
    assert all(type(count) is int and count >= 0 for count in made.retries.values())


@given(
    st.lists(st.sampled_from(["", "# a comment", "  # x = 1", "many = [\n 1,\n # two\n 2,\n]"]), max_size=6)
)
def test_the_line_is_that_where_the_statement_begins(above: list[str]) -> None:
    before = [text.replace("many", f"many{number}") for number, text in enumerate(above)]
    text = "\n".join([*before, "x = [", "]", "[t]", 'text = """', "x = 2", '"""', "x = 3"])
    lines = text.splitlines()
    assert line_of(text, ("x",)) == lines.index("x = [") + 1
    assert line_of(text, ("t", "x")) == lines.index("x = 3") + 1
    assert line_of(text, ("y",)) is None
