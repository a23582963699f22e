"""The stories on a cluster and behind a sentinel; the other runs use a single Valkey.

`make test` runs a few stories on a cluster: those that use queues, leases, routing tables and sessions.
"""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.harness.cluster import Cluster
from tests.harness.processes import CHECKOUT, environment
from tests.harness.stack import Stack, running_stack
from tests.stories.test_cognism_push import join, test_a_push_reaches_only_its_session_unchanged
from tests.stories.test_in_order import test_events_of_a_batch_keep_their_order
from tests.stories.test_one_socket_per_channel import test_newest_socket_takes_over

__all__ = [
    "join",
    "test_a_push_reaches_only_its_session_unchanged",
    "test_events_of_a_batch_keep_their_order",
    "test_newest_socket_takes_over",
]


@pytest.fixture(scope="module")
def shared_stack() -> Iterator[Stack]:
    """Replaces the shared installation for the stories imported above."""
    with running_stack(gateways=2, edges=2, redis_like=Cluster) as stack:
        yield stack


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("redis_like", ["cluster", "sentinel"])
def test_all_stories(redis_like: str) -> None:
    options = [f"--redis={redis_like}", "-n4", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/stories"],
        cwd=CHECKOUT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
