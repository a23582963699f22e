"""What can be asked for at the command line."""

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
        description="Measures the gateway, and checks every notification on the way.",
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
    told = parser.parse_args(argv)
    if told.url and told.admin_token is None:
        parser.error("--url needs --admin-token")
    if told.url and told.scenario == "scale":
        parser.error("scale starts its own installations")
    told.label = told.label or told.scenario
    return told


def _add_common(parser: argparse.ArgumentParser) -> None:
    site = parser.add_argument_group("what is measured")
    site.add_argument("--gateways", type=count, default=1, help="processes to start")
    site.add_argument("--edges", type=count, default=1, help="processes to start")
    site.add_argument(
        "--appendfsync",
        choices=("always", "everysec", "no"),
        default="everysec",
        help="of the Valkey started",
    )
    site.add_argument("--unix", action="store_true", help="reach that Valkey by a Unix socket, not by TCP")
    site.add_argument(
        "--url", action="append", help="a running deployment's gateway, instead; may come again"
    )
    site.add_argument(
        "--edge-url", action="append", help="its edge, when that has a URL of its own; likewise"
    )
    site.add_argument("--admin-token", help="of that deployment")
    site.add_argument(
        "--pid", action="append", default=[], help="a process of it to watch, as in edge=123; may come again"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--size", type=count, default=200, help="bytes of a notification")
    how.add_argument("--lanes", type=count, default=20, help="publishers, each with one request under way")
    how.add_argument(
        "--processes",
        type=count,
        default=max(1, (os.cpu_count() or 1) // _CORES_FOR_A_WORKER),
        help="of the harness, for each of its roles",
    )
    how.add_argument(
        "--patience", type=float, default=15.0, help="seconds without anything before it is lost"
    )
    out = parser.add_argument_group("what comes of it")
    out.add_argument("--label", help="names the results; the scenario's name otherwise")
    out.add_argument(
        "--out", type=Path, default=RESULTS, help="results are appended here, one JSON object a line"
    )
    out.add_argument("--html", type=Path, default=REPORT, help="the report with plots is written here")
    out.add_argument("--compare", type=Path, help="such a file of an earlier run: prints ratios")


def count(text: str) -> int:
    """A number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number
