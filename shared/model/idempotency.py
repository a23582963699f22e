"""A request with an Idempotency-Key: its publisher may send it again, and one run of it has a deadline."""

import uuid
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Repeatable:
    """The publisher's API key, its Idempotency-Key, and a hash of the request.

    A publisher without an API key has the id of its account in that place.
    """

    api_key_id: str
    idempotency_key: str
    fingerprint: str

    def event_id(self, index: int) -> str:
        """The id of the event at `index`: the same for each repetition, through any gateway.

        The fingerprint is part of it: when the key is free again and names another request, receivers must
        not take the new event for the old one.
        """
        name = f"{self.fingerprint} {index} {self.idempotency_key}"
        return str(uuid.uuid5(uuid.UUID(hex=self.api_key_id), name))


@dataclass(slots=True)
class Deadline:
    """Redis writes for a run of the request until `ms` of its own clock, and refuses what comes later.

    It moves while the run is under way. So what a run has sent does not arrive behind the events of the next.
    """

    ms: int
