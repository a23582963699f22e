"""A request that its publisher may send again under the same Idempotency-Key."""

import uuid
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Repeatable:
    """ChannelRef request it is, the key its publisher gave it, and a hash of what it says."""

    api_key_id: str
    idempotency_key: str
    fingerprint: str

    def event_id(self, index: int) -> str:
        """The id of the event at `index`: the same whenever, and through whichever gateway, this comes again.

        It stands for what the request says too: should the key be used for something else once it is free
        again, no receiver takes the one event for the other.
        """
        told = f"{self.fingerprint} {index} {self.idempotency_key}"
        return str(uuid.uuid5(uuid.UUID(hex=self.api_key_id), told))
