"""The states of a delivery loop and the table of its transitions. An event without a row raises: a bug."""

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """What a loop does, and what it knows of its queue."""

    IDLE = "idle"
    """No read runs, and all of the queue was sent: inline entries may be delivered at once."""
    BEHIND = "behind"
    """No read runs, and the queue may hold more than was sent: only a read may deliver."""
    WOKEN = "woken"
    """A read is to begin: a wakeup came, perhaps while another read ran."""
    READING = "reading"
    """A read runs, and no wakeup came since it began."""
    RESYNC = "resync"
    """No read runs, and Redis may have lost writes: ack nothing before a resync."""
    RESYNC_WOKEN = "resync-woken"
    """A resync is to begin, when a call that runs has ended."""
    RESYNCING = "resyncing"
    """A resync runs; a read follows."""
    STOPPED = "stopped"
    """Sends nothing more, and may ack."""
    STOPPED_UNSURE = "stopped-unsure"
    """Sends nothing more, and acks only if Redis still has what was sent."""
    LOST = "lost"
    """The lease is lost: sends and acks nothing more."""


class Event(StrEnum):
    """What happens to a loop."""

    WAKEUP = "wakeup"
    """There may be something to read or to ack."""
    BEGIN = "begin"
    """A read or a resync begins: it covers the wakeups until now."""
    CAUGHT_UP = "caught-up"
    """All of the queue was sent, and nothing is left to ack."""
    NOTHING_PENDING = "nothing-pending"
    """The claim has found the queue empty, and no wakeup was missed since."""
    BLOCKED = "blocked"
    """The transport takes no more for now, and the queue holds more."""
    RESYNC_REQUIRED = "resync-required"
    """Redis was away, or is known to have lost writes."""
    RESYNCED = "resynced"
    """The queue holds what was sent, and the claim stands."""
    REDIS_FAILED = "redis-failed"
    """The call that ran has failed."""
    LEASE_LOST = "lease-lost"
    """Another owner has the lease, or the channel is gone."""
    STOP = "stop"
    """Stopped from outside, or by an unexpected error."""


RUNNING = frozenset({State.WOKEN, State.READING, State.RESYNC_WOKEN, State.RESYNCING})
"""In these the loop has a task."""

S, E = State, Event
# fmt: off
TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    S.IDLE: {
        E.WAKEUP: S.WOKEN, E.BLOCKED: S.BEHIND, E.RESYNC_REQUIRED: S.RESYNC, E.STOP: S.STOPPED,
    },
    S.BEHIND: {
        E.WAKEUP: S.WOKEN, E.NOTHING_PENDING: S.IDLE, E.RESYNC_REQUIRED: S.RESYNC, E.STOP: S.STOPPED,
    },
    S.WOKEN: {
        E.WAKEUP: S.WOKEN, E.BEGIN: S.READING, E.CAUGHT_UP: S.WOKEN, E.BLOCKED: S.WOKEN,
        E.RESYNC_REQUIRED: S.RESYNC_WOKEN,
        E.REDIS_FAILED: S.RESYNC, E.LEASE_LOST: S.LOST, E.STOP: S.STOPPED,
    },
    S.READING: {
        E.WAKEUP: S.WOKEN, E.BEGIN: S.READING, E.CAUGHT_UP: S.IDLE, E.BLOCKED: S.BEHIND,
        E.RESYNC_REQUIRED: S.RESYNC_WOKEN,
        E.REDIS_FAILED: S.RESYNC, E.LEASE_LOST: S.LOST, E.STOP: S.STOPPED,
    },
    S.RESYNC: {
        E.WAKEUP: S.RESYNC_WOKEN, E.RESYNC_REQUIRED: S.RESYNC, E.STOP: S.STOPPED_UNSURE,
    },
    S.RESYNC_WOKEN: {
        E.WAKEUP: S.RESYNC_WOKEN, E.BEGIN: S.RESYNCING, E.CAUGHT_UP: S.RESYNC_WOKEN,
        E.BLOCKED: S.RESYNC_WOKEN, E.RESYNCED: S.RESYNC_WOKEN, E.RESYNC_REQUIRED: S.RESYNC_WOKEN,
        E.REDIS_FAILED: S.RESYNC, E.LEASE_LOST: S.LOST, E.STOP: S.STOPPED_UNSURE,
    },
    S.RESYNCING: {
        E.WAKEUP: S.RESYNCING, E.RESYNCED: S.WOKEN, E.RESYNC_REQUIRED: S.RESYNC_WOKEN,
        E.REDIS_FAILED: S.RESYNC, E.LEASE_LOST: S.LOST, E.STOP: S.STOPPED_UNSURE,
    },
    # A gather that is cancelled may still end with the error of one of its calls.
    S.STOPPED: {
        E.WAKEUP: S.STOPPED, E.RESYNC_REQUIRED: S.STOPPED_UNSURE, E.STOP: S.STOPPED,
        E.REDIS_FAILED: S.STOPPED_UNSURE, E.LEASE_LOST: S.LOST,
    },
    S.STOPPED_UNSURE: {
        E.WAKEUP: S.STOPPED_UNSURE, E.RESYNC_REQUIRED: S.STOPPED_UNSURE, E.STOP: S.STOPPED_UNSURE,
        E.REDIS_FAILED: S.STOPPED_UNSURE, E.LEASE_LOST: S.LOST,
    },
    S.LOST: dict.fromkeys((E.WAKEUP, E.RESYNC_REQUIRED, E.STOP), S.LOST),
}
# fmt: on


class ImpossibleTransition(Exception):
    """The loop has a bug: this event cannot happen in this state."""


def next_state(state: State, event: Event) -> State:
    """Raises ImpossibleTransition."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise ImpossibleTransition(f"{event} in state {state}") from None
