"""The image: two builds of one commit are one image, with the code, its packages, and nothing else."""

import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from tests.cluster import images
from tests.cluster.access import Failed
from tests.cluster.release import Release

# Any fixed time: what a build writes has it.
_TIMESTAMP = "1700000000"
_NAME = "localhost/notification-gateway-twice"
# The last two are where a builder mounts what its container needs; they are empty.
_MAY_HAVE = tuple(
    map(
        PurePosixPath,
        ("app/services", "app/shared", "app/health_check.py", "opt/venv", "data", "etc/hosts", "run"),
    )
)


def image(_: Release) -> list[str]:
    """Builds it twice without a cache. Raises Failed."""
    digests = {images.build_again(f"{_NAME}:{number}", timestamp=_TIMESTAMP) for number in (1, 2)}
    if len(digests) != 1:
        raise Failed(f"two builds of one commit differ: {', '.join(sorted(digests))}")
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "image.tar"
        images.save(f"{_NAME}:1", archive)
        members = _added(archive)
    _check(members)
    size = sum(member.size for member in members)
    return [f"{digests.pop()}: {len(members)} files and folders, {size // 1_000_000} MB above the base"]


def _added(archive: Path) -> list[tarfile.TarInfo]:
    """What the layers above the base add."""
    with tarfile.open(archive) as outer:
        layers = images.layers_of(outer)
        found = []
        for layer in layers[1:]:
            stream = outer.extractfile(layer)
            assert stream is not None
            with tarfile.open(fileobj=stream) as inner:
                found += inner.getmembers()
    return found


def _check(members: list[tarfile.TarInfo]) -> None:
    for member in members:
        path = PurePosixPath(member.name)
        is_within = any(path.is_relative_to(each) or each.is_relative_to(path) for each in _MAY_HAVE)
        if not is_within:
            raise Failed(f"the image has /{path}, which nothing needs")
        if member.uid == 0 and member.mode & 0o6002 and not member.issym():
            raise Failed(f"/{path} has the mode {member.mode:o}")
        if member.uid != 0 and path != PurePosixPath("data"):
            raise Failed(f"/{path} belongs to the user {member.uid}, whom the services run as")
