"""What the application may know of the connection of a request, and do with it."""

import weakref
from collections.abc import Callable
from typing import NotRequired, TypedDict, TypeVar

from shared.runtime.http.streamed import StreamedResponse

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Connection(TypedDict):
    """The connection of a request.

    `is_open`: would data written now be sent? `unread_bytes`: the written bytes that the peer's kernel has
    not acknowledged; None when that can no longer be known, as after a reset. `unacked_bytes`: the same, also
    after a reset; then what was acknowledged may be unread. `has_hung_up`: has the peer closed the
    connection, even if the event loop does not know yet? `abort` drops it with everything that is buffered.
    `was_queued`: did the request arrive before the response to the previous one was complete? `notes` live as
    long as the connection. After `end_with_input` a client that ends its input has gone; else it still gets
    its response. `has_all`: has the whole request arrived, so that reading it never waits? `owes_continue`:
    does the client wait for a 100 before it sends the body? `streamed` makes the response one whose parts
    are written directly; called before its head is sent.
    """

    is_open: Callable[[], bool]
    unread_bytes: Callable[[], int | None]
    unacked_bytes: Callable[[], int | None]
    has_hung_up: Callable[[], bool]
    abort: Callable[[], None]
    was_queued: bool
    notes: dict[str, str]
    end_with_input: Callable[[], None]
    has_all: Callable[[], bool]
    owes_continue: Callable[[], bool]
    streamed: NotRequired[Callable[[], StreamedResponse]]


def of_request(function: Callable[[Request], Answer], request: Request) -> Callable[[], Answer]:
    """The function of this request, for its `Connection`. Weakly: the request has that.

    A reference cycle for each request would wait for the garbage collector, and a flood fill the memory.
    """
    weak = weakref.ref(request)

    def call() -> Answer:
        found = weak()
        assert found is not None, "the request has ended"
        return function(found)

    return call
