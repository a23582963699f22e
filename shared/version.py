"""The version of this release, and the commit that an image was built from."""

import platform
from pathlib import Path

VERSION = "0.1.0"

# The image's build writes it; in a checkout there is none.
_REVISION_FILE = Path(__file__).parent / "REVISION"


def _revision() -> str:
    try:
        return _REVISION_FILE.read_text().strip()
    except OSError:
        return ""


REVISION = _revision()
"""The commit, or '' in a checkout."""
PYTHON = platform.python_version()


def build_line() -> str:
    """Name, version, commit and Python in one line, as `--version` prints it."""
    details = [f"revision {REVISION}"] if REVISION else []
    return f"notification-gateway {VERSION} ({', '.join([*details, f'Python {PYTHON}'])})"
