"""Spans of notifications on their way from the queue to the ack."""

import time
from collections.abc import Iterable
from functools import partial

from shared import telemetry
from shared.model.events import Notification
from shared.store.queues import parse_entry_id


class DeliveryTracer:
    """The traced notifications of one channel that were sent and are not acked: nearly always none."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        # Entry id, span, and when it was sent. No deque: an empty one takes 760 bytes for each idle socket.
        self._unacked: list[tuple[tuple[int, int], partial[None], int]] = []

    def record_sent(self, notifications: Iterable[Notification], *, read_ns: int) -> None:
        """These were read from the queue at `read_ns`, and are sent now."""
        sent_ns = time.time_ns()
        for notification in notifications:
            traceparent = notification.trail.traceparent if notification.trail else ""
            if telemetry.is_recorded(traceparent):
                entry_id, event_id = parse_entry_id(notification.entry_id), notification.event_id
                span = partial(
                    telemetry.notification_span,
                    traceparent=traceparent,
                    channel=self._channel,
                    event=event_id,
                )
                # The clock of Redis may be ahead.
                span("queued", start_ns=min(entry_id[0] * 1_000_000, read_ns), end_ns=read_ns)
                self._unacked.append((entry_id, span, sent_ns))

    def record_acked(self, until: str, *, acked_ns: int) -> None:
        """The receiver acknowledged everything up to `until` at `acked_ns`; the queue has removed it now."""
        while self._unacked and self._unacked[0][0] <= parse_entry_id(until):
            _, span, sent_ns = self._unacked.pop(0)
            span("sent", start_ns=sent_ns, end_ns=acked_ns)
            span("acked", start_ns=acked_ns, end_ns=time.time_ns())

    def forget_behind(self, entry: str) -> None:
        """What follows this entry is sent again, with spans of its own."""
        if self._unacked:
            last = parse_entry_id(entry)
            self._unacked = [each for each in self._unacked if each[0] <= last]

    def clear(self) -> None:
        self._unacked.clear()
