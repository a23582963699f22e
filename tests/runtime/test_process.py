"""A process raises its limit of open files, and warns when that is low."""

import logging
import resource
from collections.abc import Iterator

import pytest

from shared.runtime.process import raise_file_limit


@pytest.fixture
def hard() -> Iterator[int]:
    """The hard limit. The soft one is lowered for the test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_becomes_the_hard_limit(hard: int) -> None:
    limit = raise_file_limit()

    assert limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 512
    assert hard in (limit, resource.RLIM_INFINITY)


def test_a_low_limit_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))

    with caplog.at_level(logging.WARNING):
        assert raise_file_limit() == 1024

    assert [(line.message, line.__dict__["facts"]["limit"]) for line in caplog.records] == [
        ("files.few", 1024)
    ]
