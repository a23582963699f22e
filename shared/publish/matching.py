"""Which channels and sessions get each event of a publish, by the routing tables as they are now."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from shared.model import events as topics
from shared.model.errors import Invalid, TooLarge
from shared.model.events import Event
from shared.model.routing_table import RoutingTable
from shared.model.streams import Keep
from shared.publish.lots import cost_of
from shared.publish.request import Posted
from shared.store.streams import STREAM_LOT
from shared.wire.events import field_of

EVENTS_A_TURN = 100
"""Matching yields to the event loop this often: 10,000 events would block it."""
# The same for events that match many channels, and for data that has to be parsed.
_COPIES_A_TURN = 2000
_PARSED_BYTES_A_COPY = 32
_ATTEMPTS = 4
# Notifications of one request. Redis must hold them all before the response.
MAX_COPIES = 100_000
MAX_COPIES_BYTES = 64 * 1024 * 1024
_WIDE_COPIES = MAX_COPIES // 100
_WIDE_BYTES = MAX_COPIES_BYTES // 100
_SETS_TYPE = (topics.DEVICE_REGISTRATIONS, topics.DEVICE_REG_UPDATES)
_REMOVES_TYPE = (topics.DEVICE_DE_REGISTRATIONS, topics.DEVICE_REGISTRATIONS_EXPIRED)


@dataclass(slots=True)
class Matched:
    """The indexes of the events for each channel (an API key's id) and for each session.

    `versions` are those of the account's table and of the table of all accounts. `types` are the device types
    that the request sets (None: removes). `streams` are the topics that are retained, with what is
    kept of each. `copies` and `size_bytes` count the notifications that the events make, and the events that
    are `retained`.
    """

    table: RoutingTable
    versions: tuple[str | None, str | None]
    copies: int = 0
    size_bytes: int = 0
    wants_receipts: bool = False
    channels: dict[str, list[int]] = field(default_factory=dict)
    sessions: dict[str, list[int]] = field(default_factory=dict)
    types: dict[str, str | None] = field(default_factory=dict)
    streams: dict[str, tuple[Keep, list[int]]] = field(default_factory=dict)
    retained: int = 0

    @property
    def is_wide(self) -> bool:
        """Might a table that is a little behind hide that these are too many?"""
        return self.copies > _WIDE_COPIES or self.size_bytes > _WIDE_BYTES


def check_quota(matched: Matched, *, events: int) -> None:
    """Checks the notifications that the first so many events make. Raises TooLarge."""
    copies, size = matched.copies, matched.size_bytes
    if copies > MAX_COPIES or size > MAX_COPIES_BYTES:
        made = f"the first {events} events make {copies} notifications, {size} bytes"
        limit = f"{MAX_COPIES} notifications or {MAX_COPIES_BYTES // 1024 // 1024} MiB"
        raise TooLarge(f"events times channels: {made}; the limit of a request is {limit}")


def cost_of_retained(matched: Matched) -> int:
    """What it costs beside the copies that events are retained: each has a name too, and may trim another."""
    commands = len(matched.streams) + matched.retained // STREAM_LOT
    return cost_of(commands=commands, copies=2 * matched.retained, size_bytes=0)


def as_retained(event: Event, table: RoutingTable) -> Event:
    """An event for one channel names it by its id: its name may pass to another channel."""
    return event if event.to is None else event._replace(to=table.addressee(event.to))


def devices_of(events: Sequence[Event], table: RoutingTable) -> list[str]:
    """The devices whose stored types matching needs: nearly always none."""
    if not table.device_type_patterns:
        return []
    notified = (event.fields for event in events if event.topic == topics.DEVICE_NOTIFICATIONS)
    return sorted({fields["ep"] for fields in notified if fields})


def match(posted: Posted, table: RoutingTable, every: RoutingTable, *, now_ms: int) -> Matched | None:
    """Matches all events in one turn; None if that would take too long. Raises Invalid for an unknown
    addressee."""
    matched = Matched(table, (table.version, every.version))
    if _add(matched, posted, 0, (table, every), {}) < len(posted.events):
        return None
    if table.expiring:
        _drop_expired(matched, now_ms)
    return matched


async def match_in_turns(
    posted: Posted,
    table: RoutingTable,
    every: RoutingTable,
    *,
    now_ms: int,
    stored_types: Mapping[str, str],
) -> Matched | None:
    """The same for any number of events, and their quota. None if the tables never come to rest meanwhile.

    Raises Invalid, and TooLarge as soon as they are too many: to match the others would only cost time.
    """
    count = len(posted.events)
    for _ in range(_ATTEMPTS):
        matched = Matched(table, (table.version, every.version))
        done = 0
        while done < count:
            if done:
                await asyncio.sleep(0)
            done = _add(matched, posted, done, (table, every), stored_types)
            check_quota(matched, events=done)
        if None not in matched.versions and matched.versions == (table.version, every.version):
            _drop_expired(matched, now_ms)
            return matched
    return None


def _add(
    matched: Matched,
    posted: Posted,
    start: int,
    tables: tuple[RoutingTable, RoutingTable],
    stored_types: Mapping[str, str],
) -> int:
    """Adds events from `start` on, as many as one turn may take. Returns where the next turn begins."""
    table, every = tables
    events = posted.events
    room, rules = _COPIES_A_TURN, table.streams
    stop = min(start + EVENTS_A_TURN, len(events))
    for index in range(start, stop):
        event = events[index]
        if event.fields is not None:
            event = _with_device_type(event, matched.types, table, stored_types)
        if event.to is not None and table.addressee(event.to) is None:
            field_ = field_of(index, "to", body=posted.body, form=posted.form)
            raise Invalid("is no channel and no API key of this account", field=field_)
        copies = 0
        for channel in table.channels_for(event):
            matched.channels.setdefault(channel, []).append(index)
            copies += 1
        if table.sessions or every.sessions:
            for session in _sessions_for(event, table, every):
                matched.sessions.setdefault(session, []).append(index)
                copies += 1
            if table.needs_data or every.needs_data:
                room -= len(event.data) // _PARSED_BYTES_A_COPY
        if rules is not None and (keep := rules.keep_for(event.topic)) is not None:
            matched.streams.setdefault(event.topic, (keep, []))[1].append(index)
            matched.retained += 1
            copies += 1
        matched.copies += copies
        matched.size_bytes += copies * (len(event.data) + len(event.attributes))
        matched.wants_receipts = matched.wants_receipts or event.receipt
        room -= copies
        if room < 0:
            return index + 1
    return stop


def _with_device_type(
    event: Event, types: dict[str, str | None], table: RoutingTable, stored_types: Mapping[str, str]
) -> Event:
    """The event of a device, with the type of the device if bindings need it; notes the type that it sets."""
    fields = event.fields
    assert fields is not None
    if event.topic in _SETS_TYPE and "ept" in fields:
        types[fields["ep"]] = fields["ept"]
    elif event.topic in _REMOVES_TYPE:
        types[fields["ep"]] = None
    elif event.topic == topics.DEVICE_NOTIFICATIONS and table.device_type_patterns:
        # Device types set earlier in this request take precedence over stored ones.
        device_type = types.get(fields["ep"], stored_types.get(fields["ep"]))
        return event._replace(fields={**fields, "ept": device_type or ""})
    return event


def _sessions_for(event: Event, *tables: RoutingTable) -> set[str]:
    """The sessions that match the event. Parses its data only if a binding needs it."""
    # Not orjson: it rounds integers beyond 64 bits, so that different ones would be equal.
    data = msgspec.json.decode(event.data) if any(table.needs_data for table in tables) else None
    return set().union(*(table.sessions_for(event, data) for table in tables))


def _drop_expired(matched: Matched, now_ms: int) -> None:
    for channel in [each for each in matched.channels if matched.table.is_expired(each, now_ms=now_ms)]:
        del matched.channels[channel]
