"""The machine finds each of six planted bugs."""

from collections.abc import Callable

import pytest
from hypothesis import settings

from shared.store.scripts import load_scripts
from tests.harness.valkey import Valkey
from tests.properties.bugs import BUGS, Bug, Steps
from tests.properties.machine import BUDGET, Notifications, search

_FIND = settings(BUDGET, max_examples=200)

each_bug = pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)


def _play(machine: Notifications, scenario: Callable[[Notifications], Steps]) -> None:
    try:
        machine.begin()
        machine.invariants_hold()
        for _ in scenario(machine):
            machine.invariants_hold()
    finally:
        machine.teardown()


@each_bug
def test_planted_bug_is_found_by_its_scenario(valkey: Valkey, bug: Bug) -> None:
    with pytest.raises(AssertionError, match=bug.found_as):
        _play(Notifications(valkey, scripts=bug.scripts, actor=bug.actor), bug.scenario)


@each_bug
def test_scenario_passes_without_the_bug(valkey: Valkey, bug: Bug) -> None:
    _play(Notifications(valkey, scripts=load_scripts()), bug.scenario)


@pytest.mark.long
@each_bug
def test_planted_bug_is_found_by_random_search(valkey: Valkey, bug: Bug) -> None:
    with pytest.raises(AssertionError, match=bug.found_as):
        search(valkey, scripts=bug.scripts, actor=bug.actor, budget=_FIND)
