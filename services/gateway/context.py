"""What every request handler of a gateway works with."""

from dataclasses import dataclass

from starlette.requests import Request

from services.composition import Stores
from services.gateway.authenticator import Authenticator
from services.gateway.endpoint_verification import EndpointVerifier
from services.gateway.fetch_waits import FetchWaits
from services.gateway.idempotency import IdempotentRequests
from shared.publish.publisher import Publisher


@dataclass(frozen=True, slots=True)
class Context:
    """The stores and what stands between them and a request; `replica` is the name of this process."""

    stores: Stores
    publisher: Publisher
    authenticator: Authenticator
    endpoint_verifier: EndpointVerifier
    idempotent_requests: IdempotentRequests
    fetch_waits: FetchWaits
    replica: str


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context
