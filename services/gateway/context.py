"""What every request handler of a gateway works with."""

from dataclasses import dataclass

from starlette.requests import Request

from services.gateway.authenticator import Authenticator
from services.gateway.endpoint_verification import EndpointVerifier
from services.gateway.idempotency import IdempotentRequests
from shared.store.api_keys import ApiKeys
from shared.store.channels import Channels
from shared.store.queues import Queues
from shared.store.receipts import Receipts
from shared.store.routing import Routing
from shared.store.sessions import Sessions
from shared.store.wakeups import Wakeups
from shared.store.webhooks import Webhooks
from shared.tokens import Principals


@dataclass(frozen=True, slots=True)
class Context:
    """The stores, who is who, and the name of this replica."""

    api_keys: ApiKeys
    channels: Channels
    wakeups: Wakeups
    idempotent_requests: IdempotentRequests
    principals: Principals
    authenticator: Authenticator
    queues: Queues
    receipts: Receipts
    replica: str
    routing: Routing
    sessions: Sessions
    endpoint_verifier: EndpointVerifier
    webhooks: Webhooks


def context_of(request: Request) -> Context:
    found: Context = request.app.state.context
    return found
