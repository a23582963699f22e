"""What a dispatcher knows of webhooks before it claims them: account, URL, and how the last attempts went."""

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.outbound.client import Attempt
from shared.store.webhooks import Setup, Webhooks

_KNOWN = 20_000
# A webhook is slow when its attempts take longer than this on average, the last one counting half.
_SLOW_MS = 1000


@dataclass(slots=True)
class KnownWebhook:
    """A webhook as it was last seen. `url` may have changed; `account` never does.

    `paced_ms`: its rate allows no request for so long, since the last outcome PACED.
    """

    account: str
    url: str
    mean_ms: float = 0.0
    has_failed: bool = False
    paced_ms: int = 0
    requests: "set[RequestUnderWay]" = field(default_factory=set)

    @property
    def is_slow(self) -> bool:
        return self.has_failed or self.mean_ms > _SLOW_MS

    def record(self, attempt: Attempt, *, is_accepted: bool) -> None:
        self.mean_ms = (self.mean_ms + attempt.took_ms) / 2
        self.has_failed = not is_accepted


class RequestUnderWay:
    """A request to a webhook as it was set up when the request began."""

    def __init__(self, setup: Setup, loop: asyncio.AbstractEventLoop) -> None:
        self._setup = setup
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None
        self._is_outdated = False

    async def attempt(self, call: Coroutine[Any, Any, Attempt]) -> Attempt | None:
        """Makes the call, in the task of the caller: a task of its own would cost as much as signing.

        None when the webhook has changed meanwhile: what the receiver did with the request is unknown.
        """
        self._task = task = asyncio.current_task(self._loop)
        assert task is not None, "a coroutine runs in a task"
        cancelling = task.cancelling()
        try:
            return await call
        except asyncio.CancelledError:
            # Unless someone else has cancelled the task too.
            if not self._is_outdated or task.uncancel() > cancelling:
                raise
            return None
        finally:
            self._task = None

    def end_unless(self, setup: Setup | None) -> None:
        """Ends the request if the webhook is set up in another way now, or gone."""
        if setup != self._setup and self._task is not None and not self._is_outdated:
            self._is_outdated = True
            self._task.cancel()


class KnownWebhooks:
    """Remembers the 20,000 webhooks that were visited last; others cost two reads, in one round trip."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks
        self._known: OrderedDict[str, KnownWebhook] = OrderedDict()

    async def get(self, channel: str) -> KnownWebhook | None:
        """None when the API key or its webhook is gone. Raises StoreUnavailable."""
        known = self._known.get(channel)
        if known is not None:
            self._known.move_to_end(channel)
            return known
        target = await self._webhooks.target(channel)
        if target is None:
            return None
        # Visits hold the record that they began with: the first one stays.
        known = self._known.setdefault(channel, KnownWebhook(target.account, target.url))
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return known

    def requests_to(self, channel: str) -> Sequence[RequestUnderWay]:
        """Those under way."""
        known = self._known.get(channel)
        return list(known.requests) if known is not None else []

    def forget(self, channel: str) -> None:
        """The channel is gone."""
        self._known.pop(channel, None)
