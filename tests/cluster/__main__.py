"""`python -m tests.cluster up|down|in|run`: what the Makefile's cluster targets call."""

import argparse
import os
import sys
from collections.abc import Sequence

from tests.cluster import rig
from tests.cluster.places import LOGS
from tests.cluster.requirements import Missing


def main(argv: Sequence[str] | None = None) -> int:
    """0 if all is well, 1 if not, 2 on wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start a cluster, and leave it running")
    commands.add_parser("down", help="end the cluster, and put back what it has changed")
    inside = commands.add_parser("in", help="run a command inside, as in `in kubectl get pods`")
    inside.add_argument("inner", nargs=argparse.REMAINDER, metavar="COMMAND")
    given = parser.parse_args(argv)
    try:
        return _carry_out(given)
    except Missing as error:
        print(error, file=sys.stderr)
        return 1


def _carry_out(given: argparse.Namespace) -> int:
    if given.command == "up":
        rig.start(stays=True)
        print(
            "the cluster is ready. Inside:\n"
            "  .venv/bin/python -m tests.cluster in kubectl get pods --all-namespaces\n"
            "  .venv/bin/python -m tests.cluster in helm list --all-namespaces\n"
            f"Logs are in {LOGS}. `make cluster-down` ends it."
        )
    elif given.command == "down":
        print("ended" if rig.stop() else "no cluster runs")
    else:
        command = [*rig.entrance(), *(given.inner or ["bash"])]
        os.execvp(command[0], command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
