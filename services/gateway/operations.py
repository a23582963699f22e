"""Operations: a method at a path, from which come its Starlette route and its entry in the OpenAPI document.

The handler's docstring is the summary, the type of `posted` is the model of the request's body, the return
type that of the response's.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_type_hints

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.gateway.authenticator import Authenticator
from services.gateway.bodies import body_in, model_response
from services.gateway.context import context_of
from shared.model.api_keys import Scope

Caller = TypeVar("Caller")
R = TypeVar("R")
P = ParamSpec("P")
Json = dict[str, Any]

OPERATIONS: list["Operation[Any]"] = []
"""All of them: the import of a module adds those that it serves or describes."""


@dataclass(frozen=True, slots=True)
class Access(Generic[Caller]):
    """Who may call: the check that returns the caller, and what the document says of it."""

    check: Callable[[Request], Awaitable[Caller]]
    schemes: tuple[str, ...] = ()
    errors: tuple[int, ...] = (401, 403, 429, 503)


async def _no_check(_: Request) -> None:
    return None


def _authenticator(request: Request) -> Authenticator:
    return context_of(request).authenticator


ANYONE = Access(_no_check, errors=())
OPERATOR = Access(lambda request: _authenticator(request).require_operator(request), ("adminToken",))
ADMIN = Access(
    lambda request: _authenticator(request).administrator(request),
    ("adminToken", "apiKey"),
    (401, 403, 404, 429, 503),
)
PUBLISHER = Access(lambda request: _authenticator(request).require(request, Scope.PUBLISH), ("apiKey",))
READER = Access(_no_check, ("apiKey", "token", "ticket"), (401, 403, 429, 503))
NATIVE_CLIENT = Access(_no_check, ("apiKey", "token"), (401, 403, 429, 503))
"""These two are the edge's."""
PUBLISHER_OR_TOKEN = Access(lambda request: _authenticator(request).publisher(request), ("apiKey", "token"))
RECEIVER = Access(lambda request: _authenticator(request).require(request, Scope.RECEIVE), ("apiKey",))


@dataclass
class Operation(Generic[Caller]):
    """Decorates the handler. Without one, another operation's route or another service serves the request.

    `name` and `summary` are by default those of the handler; `status`, of a success, is 200, or 204 without a
    body. A handler that reads its body, or writes its response, itself needs `body` or `successes`: models or
    OpenAPI. `pattern` is Starlette's path where it is not that of the document.
    """

    at: str
    by: Access[Caller]
    _: KW_ONLY
    name: str = ""
    summary: str = ""
    status: int | None = None
    errors: tuple[int, ...] = ()
    successes: Mapping[int, Any] | None = None
    body: Any = None
    parameters: Sequence[Json] = ()
    pattern: str = ""
    handler: Callable[Concatenate[Request, Caller, ...], Awaitable[Any]] | None = field(
        default=None, init=False
    )

    def __post_init__(self) -> None:
        OPERATIONS.append(self)

    def __call__(
        self, handler: Callable[Concatenate[Request, Caller, P], Awaitable[R]]
    ) -> Callable[Concatenate[Request, Caller, P], Awaitable[R]]:
        self.handler = handler
        return handler

    def route(self) -> Route:
        method, path = self.at.split()
        return Route(self.pattern or path, self.respond, methods=[method])

    async def respond(self, request: Request) -> Response:
        """Authenticates, then reads the body, then calls the handler."""
        assert self.handler is not None
        caller = await self.by.check(request)
        posted = () if self._decoder is None else (await body_in(request, self._decoder),)
        result = await self.handler(request, caller, *posted)
        if isinstance(result, Response):
            return result
        if result is None:
            return Response(status_code=self.status or 204)
        return model_response(result, status=self.status or 200)

    @cached_property
    def types(self) -> dict[str, Any]:
        """The handler's annotations."""
        return get_type_hints(self.handler, include_extras=True) if self.handler else {}

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[Any] | None:
        return msgspec.json.Decoder(self.types["posted"]) if "posted" in self.types else None
