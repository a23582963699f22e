"""The table of a delivery loop's states: every event in every state is a row, or is refused."""

from itertools import product

import pytest

from shared.delivery.state import RUNNING, TRANSITIONS, Event, ImpossibleTransition, State, next_state

UNSURE = {State.RESYNC, State.RESYNC_WOKEN, State.RESYNCING, State.STOPPED_UNSURE}
TERMINAL = {State.STOPPED, State.STOPPED_UNSURE, State.LOST}
ROWS = [(state, event, after) for state, row in TRANSITIONS.items() for event, after in row.items()]


@pytest.mark.parametrize(("state", "event"), [*product(State, Event)])
def test_an_event_is_a_row_or_is_refused(state: State, event: Event) -> None:
    if event in TRANSITIONS[state]:
        assert next_state(state, event) is TRANSITIONS[state][event]
    else:
        with pytest.raises(ImpossibleTransition, match=f"{event} in state {state}"):
            next_state(state, event)


def test_every_state_is_reached_from_the_first() -> None:
    reached = {State.BEHIND}
    while more := {after for state, _, after in ROWS if state in reached} - reached:
        reached |= more

    assert reached == set(State)


@pytest.mark.parametrize("event", [Event.WAKEUP, Event.RESYNC_REQUIRED, Event.STOP])
def test_events_from_outside_are_possible_in_every_state(event: Event) -> None:
    assert all(event in TRANSITIONS[state] for state in State)


def test_a_wakeup_is_followed_by_a_read_until_the_loop_ends() -> None:
    assert {next_state(state, Event.WAKEUP) for state in set(State) - TERMINAL} <= RUNNING - {State.READING}


def test_only_what_runs_begins_ends_or_fails() -> None:
    inner = {Event.BEGIN, Event.CAUGHT_UP, Event.RESYNCED}
    assert {state for state, event, _ in ROWS if event in inner} == RUNNING
    stopping = {State.STOPPED, State.STOPPED_UNSURE}
    for event in (Event.REDIS_FAILED, Event.LEASE_LOST):
        assert {state for state, row in TRANSITIONS.items() if event in row} == RUNNING | stopping


def test_a_call_that_fails_during_a_stop_makes_the_loop_unsure() -> None:
    assert next_state(State.STOPPED, Event.REDIS_FAILED) is State.STOPPED_UNSURE


def test_only_a_resync_makes_a_loop_sure_again() -> None:
    for state, event, after in ROWS:
        if state in UNSURE and after not in {*UNSURE, State.LOST}:
            assert (state, event) == (State.RESYNCING, Event.RESYNCED)


def test_an_end_is_an_end() -> None:
    for state, _, after in ROWS:
        if state in TERMINAL:
            assert after is state or after is State.LOST or after is State.STOPPED_UNSURE
