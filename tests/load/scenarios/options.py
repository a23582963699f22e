"""Options that several scenarios share, on the command line and as values."""

import argparse

from tests.load.scenarios.sockets import Stream


def for_stream(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--channels", type=int, default=100, help="how many, each with a socket")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to publish")
    parser.add_argument("--warm-up", type=float, default=2.0, help="seconds of the same work before")
    parser.add_argument("--array", type=int, default=1, help="events in a request")
    parser.add_argument("--together", action="store_true", help="all events of a request for one channel")
    parser.add_argument(
        "--addressed", action="store_true", help="events name their API key: no subscriptions"
    )


def for_sockets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=1000.0, help="events per second")
    for_stream(parser)


def stream(arguments: argparse.Namespace, *, rate: float | None) -> Stream:
    return Stream(
        channels=arguments.channels,
        rate=rate,
        seconds=arguments.seconds,
        warm_up_s=arguments.warm_up,
        array=arguments.array,
        together=arguments.together,
        subscribed=not arguments.addressed,
    )
