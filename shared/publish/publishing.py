"""What a service publishes with, for events that are posted by HTTP requests or by frames of a socket."""

from dataclasses import dataclass

from shared.model.idempotency import Deadline, Repeatable
from shared.publish.idempotency import IdempotentRequests
from shared.publish.publisher import Publisher
from shared.publish.request import Posted, pack_counts, unpack_counts
from shared.store.idempotency import RESPONSE_BYTES
from shared.store.stored_bytes import Stored, StoredBytes


@dataclass(frozen=True, slots=True)
class Publishing:
    """One publisher of a process, the requests that it carries out once, and what accounts store by both."""

    publisher: Publisher
    idempotent_requests: IdempotentRequests
    stored_bytes: StoredBytes

    async def publish_once(self, posted: Posted, request: Repeatable) -> tuple[list[int], bool]:
        """What `Publisher.publish` returns, or returned for the same request before; and which it is.

        Raises what that raises, and what `IdempotentRequests.run` raises.
        """

        async def work(deadline: Deadline) -> bytes:
            return pack_counts(await self.publisher.publish(posted, deadline=deadline))

        packed, is_repetition = await self.idempotent_requests.run(request, work)
        if not is_repetition:
            self.stored_bytes.add(posted.account_id, Stored.RESPONSES, RESPONSE_BYTES + len(packed))
        return unpack_counts(packed), is_repetition
