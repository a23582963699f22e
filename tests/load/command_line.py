"""The command line's options."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from tests.load.scenarios import SCENARIOS

RESULTS = Path(".load/results.jsonl")
REPORT = Path(".load/report.html")
_CORES_FOR_A_WORKER = 4


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.load",
        description="Measures the gateway and checks that every notification arrives once and in order.",
    )
    scenarios = parser.add_subparsers(dest="scenario", required=True, metavar="SCENARIO")
    for name, scenario in SCENARIOS.items():
        own = scenarios.add_parser(
            name,
            help=scenario.help,
            description=scenario.help,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        scenario.add_options(own)
        _add_common(own)
    parsed = parser.parse_args(argv)
    if parsed.url and parsed.admin_token is None:
        parser.error("--url needs --admin-token")
    if parsed.url and parsed.scenario == "scale":
        parser.error("scale starts its own installations: omit --url")
    if parsed.native and not parsed.profile:
        parser.error("--native needs --profile")
    if parsed.window and not parsed.publisher:
        parser.error("--window needs --publisher websocket")
    parsed.label = parsed.label or parsed.scenario
    return parsed


def _add_common(parser: argparse.ArgumentParser) -> None:
    installation = parser.add_argument_group("installation")
    installation.add_argument("--gateways", type=count, default=1, help="gateways to start")
    installation.add_argument("--edges", type=count, default=1, help="edges to start")
    installation.add_argument(
        "--appendfsync",
        choices=("always", "everysec", "no"),
        default="everysec",
        help="appendfsync of the Valkey that is started",
    )
    installation.add_argument(
        "--unix", action="store_true", help="connect to that Valkey by a Unix socket instead of TCP"
    )
    installation.add_argument(
        "--url", action="append", help="gateway of a running installation to measure instead; repeatable"
    )
    installation.add_argument(
        "--edge-url", action="append", help="edge of that installation, if it has another URL; repeatable"
    )
    installation.add_argument("--admin-token", help="admin token of that installation")
    installation.add_argument(
        "--pid",
        action="append",
        default=[],
        help="process of that installation to sample, as in edge=123; repeatable",
    )
    how = parser.add_argument_group("load")
    how.add_argument("--size", type=count, default=200, help="size of a notification in bytes")
    how.add_argument("--lanes", type=count, default=20, help="publishers, each with one request in progress")
    how.add_argument(
        "--publisher",
        choices=("websocket",),
        help="publish by sockets of notify.v1; if left out, by requests of HTTP",
    )
    how.add_argument(
        "--window",
        type=count,
        help="with --publisher websocket: requests in progress of each, 1 if left out",
    )
    how.add_argument(
        "--processes",
        type=count,
        default=max(1, (os.cpu_count() or 1) // _CORES_FOR_A_WORKER),
        help="processes of the harness per role",
    )
    how.add_argument(
        "--patience",
        type=float,
        default=15.0,
        help="seconds without a notification until the missing ones count as lost",
    )
    _add_costs(parser)
    out = parser.add_argument_group("output")
    out.add_argument("--label", help="name of the results; default: the scenario")
    out.add_argument(
        "--out", type=Path, default=RESULTS, help="results are appended to this file, one JSON object a line"
    )
    out.add_argument("--html", type=Path, default=REPORT, help="file for the report with plots")
    out.add_argument("--compare", type=Path, help="result file of an earlier run to compare with")


def _add_costs(parser: argparse.ArgumentParser) -> None:
    costs = parser.add_argument_group("costs")
    costs.add_argument(
        "--system-calls",
        action="store_true",
        help="count the processes' system calls by `perf stat`, for which it needs root",
    )
    costs.add_argument(
        "--profile",
        type=count,
        nargs="?",
        const=200,
        default=0,
        metavar="SAMPLES",
        help="sample the functions of gateways, edges and dispatchers by py-spy, so often a second",
    )
    costs.add_argument("--native", action="store_true", help="with --profile: also functions of C libraries")


def count(text: str) -> int:
    """A positive number."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number
