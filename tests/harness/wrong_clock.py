"""Processes with a wrong wall clock, by libfaketime. Their monotonic clock is right, as on real machines."""

from pathlib import Path

from tests.harness.processes import Process
from tests.harness.programs import missing

_LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


class WrongClock:
    """The wall clock of the processes that `rule` names. It may be set again while they run."""

    def __init__(self, folder: Path, *, name: str = "clock") -> None:
        """Ends the test without libfaketime."""
        if _LIBRARY is None:
            missing("libfaketime")
        self._file = folder / f"{name}.faketime"

    def set(self, offset: str) -> None:
        """`+25h` or `-25h`: that far ahead of this machine's clock, or behind it."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{offset}\n")
        written.rename(self._file)

    def rule(self, *processes: Process) -> None:
        """They start with this clock, in interpreters of their own: a fork preloads no library."""
        assert _LIBRARY is not None
        for process in processes:
            process.env |= {
                "LD_PRELOAD": str(_LIBRARY),
                "FAKETIME_TIMESTAMP_FILE": str(self._file),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                # Otherwise each source looks newer than its compiled file, which is then written again.
                "NO_FAKE_STAT": "1",
            }
