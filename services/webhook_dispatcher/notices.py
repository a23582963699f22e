"""Tells accounts what became of their webhooks: publishes notices as events, and then removes them.

A notice lies in its channel until it was published. A dispatcher that dies in between leaves it to the sweep
of another one; its event then has the same id.
"""

import logging

import orjson

from shared.model.account_channels import shown_id
from shared.model.errors import Invalid, StoreUnavailable, TooLarge
from shared.model.events import Event
from shared.model.webhooks import Notice
from shared.publish.publisher import Publisher
from shared.publish.request import Posted
from shared.store.webhook_notices import Notices, WebhookNotices
from shared.wire.events import Form
from shared.wire.times import moment_text

logger = logging.getLogger(__name__)


class NoticePublisher:
    """Publishes the notices of channels; one task for a channel at a time."""

    def __init__(self, notices: WebhookNotices, publisher: Publisher) -> None:
        self._notices = notices
        self._publisher = publisher
        self._under_way: set[str] = set()

    async def publish(self, channel: str) -> None:
        """All notices of the channel. What fails is left to the sweep."""
        if channel in self._under_way:
            return
        self._under_way.add(channel)
        try:
            found = await self._notices.read(channel)
            if found is not None:
                await self._publish(channel, found)
                await self._notices.remove(channel, found)
        except StoreUnavailable:
            logger.debug("notices.left", extra={"facts": {"channel": channel}})
        finally:
            self._under_way.discard(channel)

    async def _publish(self, channel: str, found: Notices) -> None:
        """Raises StoreUnavailable."""
        events = [_event(channel, found, notice) for notice in found.notices]
        posted = Posted(found.account, events, body=b"", form=Form.JSON, traceparent=None)
        try:
            await self._publisher.publish(posted)
        except (Invalid, TooLarge):
            # A repetition would fail too.
            logger.exception("notices.refused", extra={"facts": {"channel": channel}})


def _event(channel: str, found: Notices, notice: Notice) -> Event:
    data = {
        "channel": shown_id(channel),
        "name": found.channel_name or None,
        "customer": found.customer or None,
        "at": moment_text(notice.at_ms),
        **notice.facts,
    }
    # The same one if it is published again. Another notice has the number too if Redis lost its last writes.
    event_id = f"{shown_id(channel)}-{found.generation}-{notice.number}-{notice.at_ms}"
    return Event(event_id, notice.topic, orjson.dumps(data), time=moment_text(notice.at_ms))
