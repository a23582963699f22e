"""The stories, which the usual run tells on one Valkey, told on a cluster and behind a sentinel."""

import subprocess
import sys

import pytest

from tests.harness.processes import CHECKOUT, environment

# One of each thing that lies in Redis in a way of its own, and none that takes its time.
A_HANDFUL = ["test_in_order.py", "test_one_socket_per_channel.py", "test_cognism_push.py"]


def test_a_handful_on_a_cluster() -> None:
    _tell("--redis=cluster", "-n0", *A_HANDFUL)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_all_on_a_cluster() -> None:
    _tell("--redis=cluster", "-n2", "")


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_all_behind_a_sentinel() -> None:
    _tell("--redis=sentinel", "-n2", "")


def _tell(*options: str) -> None:
    """Runs stories in a pytest of their own."""
    (*flags,) = (option for option in options if option.startswith("-"))
    stories = [f"tests/stories/{option}" for option in options if not option.startswith("-")]
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *flags, *stories],
        cwd=CHECKOUT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout[-20_000:] + told.stderr[-2_000:]
