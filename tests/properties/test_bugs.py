"""The machines find each planted bug."""

import pytest
from hypothesis import settings

from shared.store.scripts import load_scripts
from tests.harness.valkey import Valkey
from tests.properties import ack_bugs, bugs, native_bugs, routing_bugs, stream_bugs
from tests.properties.bugs import Bug, Machine
from tests.properties.machine import search

BUGS = [*bugs.BUGS, *routing_bugs.BUGS, *native_bugs.BUGS, *stream_bugs.BUGS, *ack_bugs.BUGS]
each_bug = pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)


def _play(bug: Bug, machine: Machine) -> None:
    try:
        machine.begin()
        machine.invariants_hold()
        for _ in bug.scenario(machine):
            machine.invariants_hold()
    finally:
        machine.teardown()


@each_bug
def test_planted_bug_is_found_by_its_scenario(valkey: Valkey, bug: Bug) -> None:
    with pytest.raises(AssertionError, match=bug.found_as):
        _play(bug, bug.machine(valkey, scripts=bug.scripts, actor=bug.actor))


@each_bug
def test_scenario_passes_without_the_bug(valkey: Valkey, bug: Bug) -> None:
    _play(bug, bug.machine(valkey, scripts=load_scripts(), actor=bug.correct))


@pytest.mark.long
@pytest.mark.timeout(1800)
@each_bug
def test_planted_bug_is_found_by_random_search(valkey: Valkey, bug: Bug) -> None:
    # Most are found within 50. Which examples there are depends on what else was imported.
    budget = settings(bug.budget, max_examples=1000)
    with pytest.raises(AssertionError, match=f"{bug.found_as}|{bug.or_as}"):
        search(valkey, scripts=bug.scripts, actor=bug.actor, machine=bug.machine, budget=budget)
