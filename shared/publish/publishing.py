"""What a service publishes with, for events that are posted by HTTP requests or by frames of a socket."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from shared.model.idempotency import Deadline, Repeatable
from shared.publish.idempotency import IdempotentRequests
from shared.publish.publisher import Publisher
from shared.publish.request import Posted, pack_counts, unpack_counts
from shared.store.idempotency import RESPONSE_BYTES
from shared.store.stored_bytes import Stored, StoredBytes

Publish: TypeAlias = Callable[[Deadline], Awaitable[list[int]]]


@dataclass(frozen=True, slots=True)
class Publishing:
    """One publisher of a process, the requests that it carries out once, and what accounts store by both."""

    publisher: Publisher
    idempotent_requests: IdempotentRequests
    stored_bytes: StoredBytes

    async def publish_once(
        self, posted: Posted, request: Repeatable, *, publish: Publish | None = None
    ) -> tuple[list[int], bool]:
        """What `publish` returns, or returned for the same request before; and which it is.

        That is by default `Publisher.publish`. Raises what it raises, and what `IdempotentRequests.run` does.
        """

        async def work(deadline: Deadline) -> bytes:
            if publish is not None:
                return pack_counts(await publish(deadline))
            return pack_counts(await self.publisher.publish(posted, deadline=deadline))

        packed, is_repetition = await self.idempotent_requests.run(request, work)
        if not is_repetition:
            self.stored_bytes.add(posted.account_id, Stored.RESPONSES, RESPONSE_BYTES + len(packed))
        return unpack_counts(packed), is_repetition
