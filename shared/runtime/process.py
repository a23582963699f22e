"""Process limits: many open files, and short pauses for garbage collection."""

import gc
import logging
import resource
from contextlib import suppress

logger = logging.getLogger(__name__)

# For a system without a hard limit: some refuse RLIM_INFINITY itself.
_MANY_FILES = 1024 * 1024
_FEW_FILES = 8 * 1024
# Python's default is (700, 10, 10): full collections become about 14 times rarer.
_GC_THRESHOLDS = (2_000, 10, 50)


def raise_file_limit() -> int:
    """Raises the limit of open files, one for each connection, to the most allowed. Returns it."""
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
    """Exempts everything allocated so far from garbage collection, and collects less often.

    With thousands of sockets a full collection stops the event loop for a fifth of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
