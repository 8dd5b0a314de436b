"""The queue of a local launch gives out what is ready in order, and what fails takes with it what needs it."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from suite import sweeps
from suite.launch.grouping import jobs
from suite.launch.job_queue import JobQueue
from suite.launch.local import SHORT_TRAINING
from suite.recipe import Dataset, Network, Precision, Sgd, Training, plan

SGD = Sgd(epochs=1, batch=128, lr=0.05, flip=False, pad=1, precision=Precision("O0"))
STAGES = [Training(Network("resnet20"), Dataset("digits", size=8), SGD, seed=seed) for seed in range(12)]


def queue(needs: list[set[int]]) -> JobQueue:
    """A job of each stage; `needs` are numbers of earlier ones."""
    listed = zip(STAGES, needs, strict=False)
    return JobQueue({s.key: ((s,), frozenset(STAGES[n].key for n in wanted)) for s, wanted in listed})


@st.composite
def graphs(draw: st.DrawFn) -> list[set[int]]:
    size = draw(st.integers(1, len(STAGES)))
    return [
        draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set() for number in range(size)
    ]


@given(graphs(), st.randoms())
def test_any_graph_ends_and_each_job_starts_in_order_once_if_all_that_it_needs_succeeded(
    needs: list[set[int]], dice: object
) -> None:
    waiting = queue(needs)
    number = {stage.key: n for n, stage in enumerate(STAGES)}
    at_work: list[int] = []
    ended: dict[int, bool] = {}
    while waiting or at_work:
        job = waiting.first()
        left = [n for n in range(len(needs)) if n not in ended and n not in at_work]
        ready = [n for n in left if all(ended.get(need) for need in needs[n])]
        assert (number[job[0].key] if job else None) == (ready[0] if ready else None)
        if job and (not at_work or dice.random() < 0.5):  # type: ignore[attr-defined]
            waiting.take(job[0].key)
            at_work.append(ready[0])
            continue
        one = at_work.pop(dice.randrange(len(at_work)))  # type: ignore[attr-defined]
        ended[one] = dice.random() < 0.7  # type: ignore[attr-defined]
        if ended[one]:
            waiting.succeeded(STAGES[one].key)
            continue
        lost = [number[key] for key in waiting.give_up([STAGES[one].key])]
        assert lost == sorted(lost) and not {*lost} & {*at_work, *ended}
        ended |= dict.fromkeys(lost, False)
        assert not [n for n in left if n not in ended and any(ended.get(need) is False for need in needs[n])]
    assert ended.keys() == {*range(len(needs))}
    assert all(ended[need] for n in ended if ended[n] for need in needs[n])


def test_jobs_that_are_cancelled_leave_with_those_that_need_them() -> None:
    waiting = queue([set(), {0}, {1}, set()])
    assert waiting.within({STAGES[1].key}) == [STAGES[1].key]
    assert waiting.give_up(waiting.within({STAGES[1].key})) == [STAGES[1].key, STAGES[2].key]
    assert len(waiting) == 2 and waiting.first() == (STAGES[0],)


def test_to_ask_what_is_first_costs_the_same_whatever_waits() -> None:
    many = {str(n): ((STAGES[0],), frozenset({"0"} if n else ())) for n in range(50_000)}
    few = {str(n): ((STAGES[0],), frozenset({"0"} if n else ())) for n in range(5)}
    seconds = []
    for listed in (few, many):
        waiting = JobQueue(listed)
        waiting.take("0")
        began = time.process_time()
        for _ in range(10_000):
            assert waiting.first() is None and waiting
        seconds.append(time.process_time() - began)
    assert seconds[1] < 20 * seconds[0], "10,000 times as many wait"


def test_what_another_stage_continues_comes_before_it_however_short_its_training_is() -> None:
    """Those of two epochs of digits were started last, among what is light, and what continued them failed."""
    stages = plan(sweeps.find("lowbit").stages(["--progressive"])[0])
    job_of = {
        stage.key: number for number, job in enumerate(jobs(stages, 2, SHORT_TRAINING)) for stage in job
    }
    assert any(len(stage.needs) == 2 for stage in stages)
    for stage in stages:
        assert all(job_of[needed.key] < job_of[stage.key] for needed in stage.needs)
