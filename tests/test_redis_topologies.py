"""The stories, which the usual run tells on one Valkey, told on a cluster and behind a sentinel."""

import subprocess
import sys

import pytest

from tests.harness.processes import CHECKOUT, environment

# One of each thing that lies in Redis in a way of its own, and none that takes its time.
A_HANDFUL = ["test_in_order.py", "test_one_socket_per_channel.py", "test_cognism_push.py"]


def test_a_handful_on_a_cluster() -> None:
    _tell([f"tests/stories/{name}" for name in A_HANDFUL], on="cluster", workers=0)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_all_on_a_cluster() -> None:
    _tell(["tests/stories"], on="cluster", workers=2)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_all_behind_a_sentinel() -> None:
    _tell(["tests/stories"], on="sentinel", workers=2)


def _tell(stories: list[str], *, on: str, workers: int) -> None:
    """Runs stories in a pytest of their own."""
    options = [f"--redis={on}", f"-n{workers}", "-q", "-p", "no:cacheprovider"]
    told = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *stories],
        cwd=CHECKOUT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout[-20_000:] + told.stderr[-2_000:]
