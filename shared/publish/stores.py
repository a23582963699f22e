"""What a publish needs of the store."""

from dataclasses import dataclass

from shared.publish.rates import Rates
from shared.store.queues import Queues
from shared.store.receipts import Receipts
from shared.store.routing import Routing
from shared.store.sessions import Sessions
from shared.store.stored_bytes import StoredBytes
from shared.store.streams import Streams


@dataclass(frozen=True, slots=True)
class PublishStores:
    """The stores that a publish uses.

    `rates` admits it; None: no rate is limited. `stored_bytes` counts it; None: nothing is counted.
    `streams` retains it; None: nothing is retained.
    """

    routing: Routing
    queues: Queues
    sessions: Sessions
    receipts: Receipts
    rates: Rates | None = None
    stored_bytes: StoredBytes | None = None
    streams: Streams | None = None
