"""What a process asks of Python and of the system, for many connections and short pauses."""

import gc
import logging
import resource
from contextlib import suppress

logger = logging.getLogger(__name__)

# Where the system names no limit: some refuse "any number", all take this.
_MANY_FILES = 1024 * 1024
_FEW_FILES = 8 * 1024
# Containers made and not freed until it looks at the youngest, and so on: ten times as many, and 500 times.
_COLLECTOR = (2_000, 10, 50)


def raise_file_limit() -> int:
    """Each connection is an open file: takes as many as this process may have, and tells how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if 0 <= soft < _FEW_FILES:
        logger.warning("files.few", extra={"facts": {"limit": soft, "advised": _FEW_FILES}})
    return soft


def freeze_heap() -> None:
    """What is there now stays, so the collector need not look at it again; and it looks less often.

    With thousands of sockets a look at all that lives stops everything for a fifth of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR)
