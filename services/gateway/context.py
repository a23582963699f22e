"""What every request handler of a gateway works with."""

from dataclasses import dataclass

from starlette.requests import Request

from services.gateway.idempotency import Once
from services.gateway.proof import Proof
from services.gateway.trials import Trials
from shared.store.api_keys import ApiKeys
from shared.store.channels import Channels
from shared.store.nudges import Nudges
from shared.store.queues import Queues
from shared.store.receipts import Receipts
from shared.store.routes import Routing
from shared.store.sessions import Sessions
from shared.store.webhooks import Webhooks
from shared.tokens import Principals


@dataclass(frozen=True, slots=True)
class Context:
    """The stores, who is who, and the name of this replica."""

    api_keys: ApiKeys
    channels: Channels
    nudges: Nudges
    once: Once
    principals: Principals
    proof: Proof
    queues: Queues
    receipts: Receipts
    replica: str
    routing: Routing
    sessions: Sessions
    trials: Trials
    webhooks: Webhooks


def context_of(request: Request) -> Context:
    found: Context = request.app.state.context
    return found
