"""What the probes find, and what they say when they cannot look."""

import asyncio
import os
from collections import Counter

import pytest

from tests.load.cost_tables import cost_tables
from tests.load.costs import Costs, all_costs, counts_of, functions, stacks_of
from tests.load.probes import Wanted, observed
from tests.load.processes import Sample, Watched, Window
from tests.load.redis_work import RedisWork
from tests.load.result import Result, client_warnings, system_call_figures
from tests.load.sequences import Count

EDGE = Watched("edge-0", "edge", 1)


def window(costs: Costs) -> Window:
    return Window((EDGE,), [Sample(0, {"edge-0": 1.0}, {}, 0), Sample(1, {"edge-0": 1.5}, {}, 0)], costs)


def test_functions_have_their_own_cost_and_that_of_what_they_call() -> None:
    stacks = stacks_of(["run;read 6", "run;parse;parse 3", "run 1", "", "run;read 0"])
    assert [(each.name, each.own, each.total) for each in functions(stacks)] == [
        ("read", 0.6, 0.6),
        ("parse", 0.3, 0.3),
        ("run", 0.1, 1.0),
    ]


def test_a_function_may_have_blanks_and_no_samples_are_no_functions() -> None:
    assert stacks_of(["<module> (a b.py:1);f (c.py:2) 7"]) == {("<module> (a b.py:1)", "f (c.py:2)"): 7}
    assert functions(stacks_of([])) == []


def test_a_process_that_waits_for_work_has_no_cost() -> None:
    lines = ["run;uv__io_poll (linux.c:1);epoll_pwait (libc.so.6) 9", "run;epoll_ctl (libc.so.6) 2"]
    assert stacks_of(lines) == {("run", "epoll_ctl (libc.so.6)"): 2}


def test_system_calls_without_a_counter_of_their_own_are_other() -> None:
    lines = [
        "100,,raw_syscalls:sys_enter,5,100.00,,",
        "60,,syscalls:sys_enter_write,5,100.00,,",
        "30,,syscalls:sys_enter_read,5,100.00,,",
        "<not counted>,,syscalls:sys_enter_ioctl,0,100.00,,",
        "",
        "perf: some remark",
    ]
    assert counts_of(lines) == {"write": 60, "read": 30, "other": 10}
    assert counts_of(["<not counted>,,raw_syscalls:sys_enter,0,100.00,,"]) == {}


def test_costs_of_phases_add_up() -> None:
    first = Costs({"edge-0": Counter(read=1)}, {"edge-0": Counter({("f",): 2})}, ["no perf"])
    second = Costs({"edge-0": Counter(read=2, write=1)}, {"edge-1": Counter({("f",): 1})}, ["no perf"])
    assert all_costs([first, second]) == Costs(
        {"edge-0": Counter(read=3, write=1)},
        {"edge-0": Counter({("f",): 2}), "edge-1": Counter({("f",): 1})},
        ["no perf"],
    )
    assert first.system_calls == {"edge-0": Counter(read=1)}


def test_the_tables_divide_by_the_notifications() -> None:
    costs = Costs({"edge-0": Counter(read=30, write=10)}, {"edge-0": stacks_of(["run;read 3", "run 1"])})
    measured = window(costs)
    redis = RedisWork({"xadd": 20}, 3, {"xadd": 70})
    result = Result("small", {}, Count(), window=measured, redis=redis, delivered=10)
    rows = [line.split() for line in cost_tables(result).splitlines()]
    assert ["xadd", "20", "2.00", "7.00"] in rows
    assert ["read", "30", "3.00"] in rows
    assert ["all", "40", "4.00"] in rows
    # Half a second of CPU for 10 notifications, three quarters of it in `read`.
    assert ["read", "75.0", "75.0", "37,500.00", "37,500.00"] in rows
    assert ["run", "25.0", "100.0", "12,500.00", "50,000.00"] in rows
    assert system_call_figures(measured, 10) == {"system_calls_edge_per_notification": 4.0}
    line = result.line({}, {})
    assert line["system_calls"] == {"edge-0": {"read": 30, "write": 10}}
    assert line["functions"] == {"edge-0": [["read", 0.75, 0.75], ["run", 0.25, 1.0]]}


def test_without_notifications_the_tables_have_counts_only() -> None:
    result = Result("idle", {}, Count(), window=window(Costs({"edge-0": Counter(read=30)})))
    assert ["read", "30", "-"] in [line.split() for line in cost_tables(result).splitlines()]
    assert system_call_figures(window(Costs({"edge-0": Counter(read=30)})), 0) == {}


async def test_what_cannot_be_counted_is_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    watched = (Watched("edge-0", "edge", os.getpid()), Watched("edge-1", "edge", os.getpid()))
    async with observed(watched, Wanted(system_calls=True, samples_per_s=100)) as costs:
        assert len(costs.left_out) == 2
    assert (costs.system_calls, costs.stacks) == ({}, {})
    assert "`perf` is not installed" in costs.left_out[0]
    assert "`py-spy` is not installed" in costs.left_out[1]
    assert client_warnings(window(costs))[:2] == costs.left_out


async def test_a_process_that_is_no_python_is_left_out_with_a_reason() -> None:
    other = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        async with observed([Watched("edge-0", "edge", other.pid)], Wanted(samples_per_s=100)) as costs:
            [reason] = costs.left_out
    finally:
        other.kill()
        await other.wait()
    assert reason.startswith("functions were not sampled in edge-0: "), reason
    assert costs.stacks == {}


async def test_nothing_is_started_when_nothing_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("asyncio.create_subprocess_exec", refuse)
    async with observed([Watched("edge-0", "edge", os.getpid())], Wanted()) as costs:
        pass
    assert costs == Costs()
