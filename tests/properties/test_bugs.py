"""The machine is worth something only if it finds bugs: each of six, put in on purpose."""

from collections.abc import Callable

import pytest
from hypothesis import settings

from shared.store.scripts import load_scripts
from tests.harness.valkey import Valkey
from tests.properties.bugs import BUGS, Bug, Steps
from tests.properties.machine import BUDGET, Notifications, searches

_FIND = settings(BUDGET, max_examples=200)

each_bug = pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)


def _plays(machine: Notifications, scenario: Callable[[Notifications], Steps]) -> None:
    try:
        machine.begin()
        machine.is_right()
        for _ in scenario(machine):
            machine.is_right()
    finally:
        machine.teardown()


@each_bug
def test_a_bug_is_found_where_it_surely_shows(valkey: Valkey, bug: Bug) -> None:
    with pytest.raises(AssertionError, match=bug.found_as):
        _plays(Notifications(valkey, scripts=bug.scripts, actor=bug.actor), bug.scenario)


@each_bug
def test_without_the_bug_nothing_is_found_there(valkey: Valkey, bug: Bug) -> None:
    _plays(Notifications(valkey, scripts=load_scripts()), bug.scenario)


@pytest.mark.long
@each_bug
def test_a_bug_is_found_at_random(valkey: Valkey, bug: Bug) -> None:
    with pytest.raises(AssertionError, match=bug.found_as):
        searches(valkey, scripts=bug.scripts, actor=bug.actor, budget=_FIND)
