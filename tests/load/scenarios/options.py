"""Command-line options of the scenarios."""

import argparse

from tests.load.scenarios.sockets import Stream


def for_stream(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--channels", type=int, default=100, help="number of channels, each with a socket")
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of the measurement")
    parser.add_argument(
        "--warm-up", type=float, default=2.0, help="seconds of the same load before the measurement"
    )
    parser.add_argument("--array", type=int, default=1, help="events per request")
    parser.add_argument("--together", action="store_true", help="all events of a request go to one channel")
    parser.add_argument(
        "--addressed", action="store_true", help="events name their API key, instead of subscriptions"
    )


def for_sockets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=1000.0, help="events per second")
    for_stream(parser)


def for_native(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, help="events per second; default: as fast as possible")
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


def for_idle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--channels", type=int, default=5000, help="number of channels, each with a socket")
    parser.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        help="duration of the measurement; the edges sweep all sockets once a minute",
    )


def for_connect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--channels", type=int, default=1000, help="number of channels, each with a socket")
    parser.add_argument("--rate", type=float, help="new sockets per second; default: as fast as possible")
    parser.add_argument("--at-once", type=int, default=50, help="maximum of handshakes in progress")
    parser.add_argument(
        "--storm-limit", type=float, default=15.0, help="duration of the storm above which there is a warning"
    )


def for_takeover(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--channels", type=int, default=20, help="number of channels, each with a socket")
    parser.add_argument("--rate", type=float, default=500.0, help="events per second")
    parser.add_argument("--takeovers", type=int, default=50, help="number of takeovers")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two takeovers")


READERS = 1000
KEEP = 1000


def for_fanout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--stream", action="store_true", help="one stream with --readers instead of a queue for each channel"
    )
    # Without --stream they are off.
    parser.add_argument(
        "--readers", type=int, default=0, help=f"with --stream: readers of the topic ({READERS} if left out)"
    )
    _keep(parser)
    parser.set_defaults(keep=0)
    parser.add_argument(
        "--channels", type=int, default=500, help="number of channels, all subscribed to every event"
    )
    parser.add_argument("--rate", type=float, default=2.0, help="events per second")
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of the measurement")
    parser.add_argument(
        "--warm-up", type=float, default=2.0, help="seconds of the same load before the measurement"
    )


def for_sse(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--readers", type=int, default=100, help="number of readers, each of its own topic")
    parser.add_argument("--rate", type=float, help="events per second; default: as fast as possible")
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of the measurement")
    parser.add_argument(
        "--warm-up", type=float, default=2.0, help="seconds of the same load before the measurement"
    )
    parser.add_argument("--array", type=int, default=1, help="events per request")
    parser.add_argument("--together", action="store_true", help="all events of a request go to one topic")
    _keep(parser)


def for_resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--readers", type=int, default=1000, help="number of readers")
    parser.add_argument("--topics", type=int, default=10, help="topics that they read, one each")
    parser.add_argument("--missed", type=int, default=100, help="events of a topic while all are away, about")
    parser.add_argument("--array", type=int, default=10, help="events per request")
    parser.add_argument("--at-once", type=int, default=1000, help="maximum of requests in progress")
    _keep(parser)


def for_tenants(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--accounts", type=int, default=1000, help="number of accounts, each with one channel and its socket"
    )
    parser.add_argument(
        "--rate", type=float, default=1000.0, help="events per second, of all accounts together"
    )
    _phases(parser, seconds=5.0, warm_up=2.0)


def for_neighbours(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--channels", type=int, default=20, help="number of measured channels: half sockets, half webhooks"
    )
    parser.add_argument("--rate", type=float, default=100.0, help="events per second of the measured account")
    parser.add_argument("--fan", type=int, default=2000, help="channels that get each event of the fan-out")
    parser.add_argument("--dead", type=int, default=100, help="an attacker's webhooks that do not respond")
    _phases(parser, seconds=5.0, warm_up=1.0)


def for_backlog(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--channels", type=int, default=1, help="number of channels with a full queue")
    parser.add_argument("--waiting", type=int, default=10_000, help="notifications in each queue")


def for_webhooks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dead", type=int, default=1, help="number of webhooks that do not respond")
    for_sockets(parser)


def for_native_webhooks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--channels", type=int, default=200, help="number of webhooks that are well")
    parser.add_argument("--rate", type=float, default=100.0, help="events per second to all of them together")
    parser.add_argument("--replayed", type=int, default=10_000, help="events in the replay of one webhook")
    _phases(parser, seconds=10.0, warm_up=2.0)


def for_scale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--grow", action="store_true", help="rate and channels are per edge, not in total")
    for_sockets(parser)


def for_rollout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sockets", type=int, default=100, help="channels with a socket that is reopened")
    parser.add_argument("--polls", type=int, default=10, help="channels that are polled")
    parser.add_argument("--webhooks", type=int, default=0, help="channels with a webhook")
    parser.add_argument(
        "--hooks-on",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address of this machine that the installation's webhook requests reach, and may use",
    )
    parser.add_argument("--kazoo", type=int, default=0, help="Blackhole sockets that are reopened")
    parser.add_argument("--cognism", type=int, default=0, help="Cognism sockets that are reopened")
    parser.add_argument("--rate", type=float, default=200.0, help="events per second")
    parser.add_argument("--array", type=int, default=10, help="events per request")
    parser.add_argument("--seconds", type=float, default=30.0, help="duration of the measurement")
    parser.add_argument(
        "--until-eof", action="store_true", help="end earlier, when standard input ends: --seconds is a limit"
    )


def _keep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", type=int, default=KEEP, help="events that a stream keeps")


def _phases(parser: argparse.ArgumentParser, *, seconds: float, warm_up: float) -> None:
    parser.add_argument("--rounds", type=int, default=2, help="how often the phases alternate")
    parser.add_argument("--seconds", type=float, default=seconds, help="duration of each phase")
    parser.add_argument(
        "--warm-up", type=float, default=warm_up, help="seconds of the same load before each phase"
    )
