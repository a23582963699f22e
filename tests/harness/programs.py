"""Programs that tests need and pip does not install. Without one a test is skipped, but not on CI."""

import os
import shutil
from typing import NoReturn

import pytest

# Debian puts servers where only root looks; Go's own archive is unpacked to the last one.
PATH = os.pathsep.join(
    [
        os.environ.get("PATH", ""),
        "/usr/local/sbin",
        "/usr/sbin",
        "/usr/local/bin",
        "/usr/bin",
        "/usr/local/go/bin",
    ]
)
_REQUIRED = "TESTS_REQUIRE_PROGRAMS"


def program(name: str) -> str:
    """The path of a program; ends the test without it."""
    found = shutil.which(name, path=PATH)
    return found if found is not None else missing(name)


def missing(what: str) -> NoReturn:
    """Skips the test; fails it if TESTS_REQUIRE_PROGRAMS is set, as `.ci/run` does."""
    if os.environ.get(_REQUIRED):
        pytest.fail(f"{what} is missing, and {_REQUIRED} forbids to skip this test: add it to .ci/run")
    pytest.skip(f"{what} is not installed (.ci/run installs it)")
