"""An earlier release, out of this checkout's history: what an upgrade begins from."""

import io
import subprocess
import tarfile
from pathlib import Path

from tests.cluster.places import CHECKOUT
from tests.cluster.requirements import Missing

# No release has a tag yet. This is the last commit before the chart's version 0.2.0 began.
COMMIT = "68072764c78c518519189099f6925c504423eff3"
"""Its data has the layout of today's."""


def is_here() -> bool:
    """False in a shallow clone."""
    return _git("cat-file", "-e", f"{COMMIT}^{{commit}}").returncode == 0


def extract(folder: Path, *paths: str) -> None:
    """Writes these folders and files of the commit into the folder. Raises Missing."""
    done = _git("archive", "--format=tar", COMMIT, "--", *paths)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise Missing(f"the earlier release {COMMIT} is not in this clone: git fetch --unshallow ({said})")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def _git(*words: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["git", *words], cwd=CHECKOUT, capture_output=True, check=False)
