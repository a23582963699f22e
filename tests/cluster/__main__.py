"""`python -m tests.cluster up|down|in|run`: what the Makefile's cluster targets call."""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields

from tests.cluster import access, rig
from tests.cluster.access import Cluster, Failed
from tests.cluster.bounds import Outcome, table
from tests.cluster.front import KINDS
from tests.cluster.load import Amount
from tests.cluster.places import LOGS
from tests.cluster.release import Release
from tests.cluster.requirements import Missing
from tests.cluster.stories import STORIES, tell

NAMESPACE = "notify-stories"


def main(argv: Sequence[str] | None = None) -> int:
    """0 if all is well, 1 if not, 2 on wrong arguments."""
    given = _parser().parse_args(argv)
    try:
        return _carry_out(given)
    except (Missing, Failed) as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    usual = Amount()
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start a cluster, and leave it running")
    commands.add_parser("down", help="end the cluster, and put back what it has changed")
    inside = commands.add_parser("in", help="run a command inside, as in `in kubectl get pods`")
    inside.add_argument("inner", nargs=argparse.REMAINDER, metavar="COMMAND")
    run = commands.add_parser("run", help="run the stories in a cluster that is started for them")
    run.add_argument("stories", nargs="*", metavar="STORY", help=f"by default all: {', '.join(STORIES)}")
    run.add_argument(
        "--cluster",
        default="own",
        help="`own`: the one that is up, or else a new one; `kind`; `kubeconfig`; a kubeconfig's path",
    )
    run.add_argument("--proxy", choices=sorted(KINDS), default="haproxy", help="what is before the Services")
    run.add_argument("--sockets", type=int, default=usual.sockets, help="clients with sockets")
    run.add_argument("--polls", type=int, default=usual.polls, help="clients that poll")
    run.add_argument("--webhooks", type=int, default=usual.webhooks, help="webhooks, in a cluster of our own")
    run.add_argument("--kazoo", type=int, default=usual.kazoo, help="clients with Blackhole sockets")
    run.add_argument("--cognism", type=int, default=usual.cognism, help="clients with Cognism sockets")
    run.add_argument("--rate", type=int, default=usual.rate, help="events per second")
    return parser


def _carry_out(given: argparse.Namespace) -> int:
    if given.command == "up":
        rig.start(stays=True)
        print(
            "the cluster is ready. Inside:\n"
            "  .venv/bin/python -m tests.cluster in kubectl get pods --all-namespaces\n"
            "  .venv/bin/python -m tests.cluster in helm list --all-namespaces\n"
            "  .venv/bin/python -m tests.cluster run install upgrade\n"
            f"Logs are in {LOGS}. `make cluster-down` ends it."
        )
    elif given.command == "down":
        print("the cluster has ended" if rig.stop() else "no cluster runs")
    elif given.command == "in":
        command = [*rig.entrance(), *(given.inner or ["bash"])]
        os.execvp(command[0], command)
    else:
        return _run(given)
    return 0


def _run(given: argparse.Namespace) -> int:
    names = given.stories or list(STORIES)
    if unknown := [name for name in names if name not in STORIES]:
        raise Missing(f"there is no story {unknown[0]!r}; the stories are {', '.join(STORIES)}")
    amount = Amount(**{each.name: getattr(given, each.name) for each in fields(Amount)})
    outcomes: list[Outcome] = []
    with _cluster(given.cluster) as cluster:
        release = Release(cluster, NAMESPACE)
        for name in names:
            print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
            outcomes.append(tell(name, release, amount, proxy=given.proxy))
            if outcomes[-1].problems and name == "install":
                break
    print(table(outcomes))
    if any(outcome.problems for outcome in outcomes):
        print(f"logs are in {LOGS}")
        return 1
    return 0


@contextmanager
def _cluster(which: str) -> Iterator[Cluster]:
    if which == "kind":
        yield access.kind_cluster()
    elif which == "kubeconfig":
        yield access.cluster_of_kubeconfig(os.environ.get("KUBECONFIG", "~/.kube/config"))
    elif which != "own":
        yield access.cluster_of_kubeconfig(which)
    elif rig.inner_pid() is not None:
        yield access.own_cluster()
    else:
        rig.start(stays=False)
        try:
            yield access.own_cluster()
        finally:
            rig.stop()


if __name__ == "__main__":
    sys.exit(main())
