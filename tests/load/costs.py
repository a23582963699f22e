"""Where the cost is: system calls and sampled functions of each process during a measurement."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
# A process that waits for a core in one of these would count as one that uses it.
_WAITING = ("epoll_wait", "epoll_pwait")

Stack = tuple[str, ...]
"""The functions of one sample, the outermost first."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function's share of a process's samples: `own` in itself, `total` with what it called."""

    name: str
    own: float
    total: float


@dataclass(slots=True)
class Costs:
    """What the probes have counted, by the process's name. `left_out`: why something was not counted."""

    system_calls: dict[str, Counter[str]] = field(default_factory=dict)
    stacks: dict[str, Counter[Stack]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def all_costs(parts: Iterable[Costs]) -> Costs:
    """The sum of several phases over the same processes."""
    whole = Costs()
    for part in parts:
        _add(whole.system_calls, part.system_calls)
        _add(whole.stacks, part.stacks)
        whole.left_out += [reason for reason in part.left_out if reason not in whole.left_out]
    return whole


def _add(whole: dict[str, Counter[T]], more: Mapping[str, Counter[T]]) -> None:
    for name, counts in more.items():
        whole.setdefault(name, Counter()).update(counts)


def functions(stacks: Mapping[Stack, int]) -> list[Function]:
    """The functions by their own cost, the dearest first; one that calls itself counts once a sample."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for stack, count in stacks.items():
        own[stack[-1]] += count
        for name in set(stack):
            total[name] += count
    every = sum(stacks.values())
    found = [Function(name, own[name] / every, count / every) for name, count in total.items()]
    return sorted(found, key=lambda each: (-each.own, -each.total, each.name))


def stacks_of(lines: Iterable[str]) -> Counter[Stack]:
    """Reads collapsed stacks: `outer;inner 12` a line. Leaves out those that show that they wait."""
    found: Counter[Stack] = Counter()
    for line in lines:
        frames, _, count = line.rstrip().rpartition(" ")
        if frames and not frames.rpartition(";")[2].startswith(_WAITING):
            found[tuple(frames.split(";"))] += int(count)
    return found


def counts_of(lines: Sequence[str]) -> Counter[str]:
    """Reads what `perf stat -x ,` prints; calls that have no event of their own are `other`."""
    found: Counter[str] = Counter()
    every = 0
    for line in lines:
        fields = line.split(",")
        if len(fields) < 3 or not fields[0].isdigit():
            continue
        count, event = int(fields[0]), fields[2]
        if event.startswith("raw_syscalls:"):
            every = count
        elif event.startswith("syscalls:sys_enter_"):
            found[event.removeprefix("syscalls:sys_enter_")] += count
    found["other"] = max(0, every - found.total())
    return +found
