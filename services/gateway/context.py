"""What every request handler of a gateway works with."""

from dataclasses import dataclass

from starlette.requests import Request

from services.composition import Stores
from services.gateway.authenticator import Authenticator
from services.gateway.endpoint_verification import EndpointVerifier
from services.gateway.fetch_waits import FetchWaits
from shared.publish.publishing import Publishing


@dataclass(frozen=True, slots=True)
class Context:
    """The stores and what stands between them and a request; `replica` is the name of this process."""

    stores: Stores
    publishing: Publishing
    authenticator: Authenticator
    endpoint_verifier: EndpointVerifier
    fetch_waits: FetchWaits
    replica: str


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context
