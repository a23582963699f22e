"""Spans of notifications on their way from the queue to the ack."""

import time
from collections.abc import Iterable

from shared import telemetry
from shared.model.events import Notification
from shared.store.queues import parse_entry_id


class DeliveryTracer:
    """The traced notifications of one channel that were sent and are not acked: nearly always none."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        # No deque: an empty one takes 760 bytes for each idle socket.
        self._unacked: list[tuple[Notification, str, int]] = []

    def record_sent(self, notifications: Iterable[Notification], *, read_ns: int) -> None:
        """These were read from the queue at `read_ns`, and are sent now."""
        sent_ns = time.time_ns()
        for notification in notifications:
            traceparent = notification.trail.traceparent if notification.trail else ""
            if telemetry.is_recorded(traceparent):
                queued_ns = parse_entry_id(notification.entry_id)[0] * 1_000_000
                # The clock of Redis may be ahead.
                self._span("queued", notification, traceparent, min(queued_ns, read_ns), read_ns)
                self._unacked.append((notification, traceparent, sent_ns))

    def record_acked(self, until: str, *, acked_ns: int) -> None:
        """The receiver acknowledged everything up to `until` at `acked_ns`; the queue has removed it now."""
        while self._unacked and parse_entry_id(self._unacked[0][0].entry_id) <= parse_entry_id(until):
            notification, traceparent, sent_ns = self._unacked.pop(0)
            self._span("sent", notification, traceparent, sent_ns, acked_ns)
            self._span("acked", notification, traceparent, acked_ns, time.time_ns())

    def clear(self) -> None:
        self._unacked.clear()

    def _span(
        self, step: str, notification: Notification, traceparent: str, start_ns: int, end_ns: int
    ) -> None:
        telemetry.notification_span(
            step,
            traceparent=traceparent,
            channel=self._channel,
            event=notification.event_id,
            start_ns=start_ns,
            end_ns=end_ns,
        )
