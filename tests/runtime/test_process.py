"""A process takes as many files as it may have, and says when those are few."""

import logging
import resource
from collections.abc import Iterator

import pytest

from shared.runtime.process import raise_file_limit


@pytest.fixture
def hard() -> Iterator[int]:
    """The most that this process may have; the limit itself is put back after the test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_it_is_the_most_that_there_may_be(hard: int) -> None:
    limit = raise_file_limit()

    assert limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 512
    assert hard in (limit, resource.RLIM_INFINITY)


def test_few_files_are_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))

    with caplog.at_level(logging.WARNING):
        assert raise_file_limit() == 1024

    assert [(line.message, line.__dict__["facts"]["limit"]) for line in caplog.records] == [
        ("files.few", 1024)
    ]
