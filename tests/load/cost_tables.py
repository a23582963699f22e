"""The costs of a result as text: commands of Redis, system calls, functions by process."""

from collections.abc import Sequence

from tests.load.costs import functions
from tests.load.processes import Window
from tests.load.redis_work import RedisWork
from tests.load.result import Result
from tests.load.table import REDIS_NOTE, aligned

_FUNCTIONS = 60
_LOOP_NOTE = (
    "own: in the function itself and in C code that it calls; total: with the functions that it calls."
    " Runner.run's own is the event loop: polling, reading and writing sockets"
)


def cost_tables(result: Result) -> str:
    """Every table for which there is something, and what was left out."""
    parts = [f"{result.label}: costs; each: divided by {result.delivered:,} notifications (or new sockets)"]
    if result.redis is not None and result.redis.calls:
        parts.append(_commands(result.redis, result.delivered))
    if result.window is not None:
        parts += _system_calls(result.window, result.delivered)
        parts += _functions(result.window, result.delivered)
        parts += [f"  ! {reason}" for reason in result.window.costs.left_out]
    return "\n\n".join(parts)


def _commands(redis: RedisWork, delivered: int) -> str:
    rows = [("command of Redis", "calls", "each", "µs each", "")]
    for name, count in redis.calls.items():
        took_us = redis.took_us.get(name, 0)
        rows.append((name, f"{count:,}", _each(count, delivered), _each(took_us, delivered), ""))
    note = "a script's µs (evalsha) include its commands'"
    return "\n".join([*aligned(rows), f"  {REDIS_NOTE}; {note}"])


def _system_calls(window: Window, delivered: int) -> list[str]:
    tables = []
    for process, calls in window.costs.system_calls.items():
        rows = [(f"system call of {process}", "calls", "each", "")]
        rows += [(name, f"{count:,}", _each(count, delivered), "") for name, count in calls.most_common()]
        rows.append(("all", f"{calls.total():,}", _each(calls.total(), delivered), ""))
        tables.append("\n".join(aligned(rows)))
    return tables


def _functions(window: Window, delivered: int) -> list[str]:
    tables = []
    for process, stacks in window.costs.stacks.items():
        cpu_us = window.spent_s(process) * 1e6
        rows: list[Sequence[str]] = [(f"function of {process}", "own %", "total %", "own µs", "total µs", "")]
        for each in functions(stacks)[:_FUNCTIONS]:
            shares = (f"{100 * each.own:.1f}", f"{100 * each.total:.1f}")
            took = (_each(each.own * cpu_us, delivered), _each(each.total * cpu_us, delivered))
            rows.append((each.name, *shares, *took, ""))
        note = f"{stacks.total():,} samples in {cpu_us / 1e6:.2f} s of CPU; µs are for each. {_LOOP_NOTE}"
        tables.append("\n".join([*aligned(rows), f"  {note}"]))
    return tables


def _each(value: float, delivered: int) -> str:
    return f"{value / delivered:,.2f}" if delivered else "-"
