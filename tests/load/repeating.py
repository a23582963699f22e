"""A worker's role: publishers that repeat what failed, under its Idempotency-Key."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.load.connections import HttpConnection, Refused, Reply
from tests.load.latencies import now_us
from tests.load.messages import Target, Template
from tests.load.publishers import Lane, Published, Publishers
from tests.load.staying import cause_of

_RETRY_S = 0.1
_RETRY_LIMIT_S = 60
_REQUEST_LIMIT_S = 10
# What a repetition may end: the first request still runs, a proxy found no gateway, or the gateway no Redis.
_PASSING = (409, 502, 503, 504)


@dataclass(slots=True)
class Repeated:
    """How publishing has fared. `more_than_once`: requests whose first repetition failed too."""

    refused: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    more_than_once: int = 0


class RepeatingLane(Lane):
    """One connection; a request that fails is sent again until it is accepted."""

    def __init__(
        self,
        number: int,
        url: str,
        heads: Sequence[bytes],
        targets: Sequence[Target],
        templates: Sequence[Template],
    ) -> None:
        super().__init__(number, url, heads, targets, templates)
        self.repeated = Repeated()

    async def _post(self, request: bytes, result: Published) -> Reply:
        line = b"\r\nIdempotency-Key: %s\r\n" % uuid.uuid4().hex.encode()
        request = request.replace(b"\r\n", line, 1)
        give_up_us, tries = now_us() + _RETRY_LIMIT_S * 1_000_000, 0
        while True:
            tries += 1
            try:
                if self._connection is None or not self._connection.open_now:
                    self._connection = await HttpConnection.open(self._url)
                reply = await self._connection.request(request, within_s=_REQUEST_LIMIT_S)
                cause = str(reply.status)
            except OSError as error:
                self._connection, reply, cause = None, Reply(503), cause_of(error)
            if reply.status == 202:
                return reply
            self.repeated.refused[cause] += 1
            self.repeated.requests += tries == 1
            self.repeated.more_than_once += tries == 2
            if reply.status not in _PASSING or now_us() > give_up_us:
                raise Refused(f"publishing was refused: {cause} {reply.body[:300]!r}")
            result.retries += 1
            await asyncio.sleep(_RETRY_S)


class Repeating(Publishers):
    """A share of such lanes."""

    def __init__(self) -> None:
        super().__init__(RepeatingLane)

    async def repeated(self) -> Repeated:
        """What all lanes together had to repeat."""
        whole = Repeated()
        for lane in self._lanes:
            if isinstance(lane, RepeatingLane):
                whole.refused += lane.repeated.refused
                whole.requests += lane.repeated.requests
                whole.more_than_once += lane.repeated.more_than_once
        return whole
