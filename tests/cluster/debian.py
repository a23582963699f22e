"""A Debian system in a folder, from the mirror that this machine itself installs from."""

import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.cluster.requirements import Missing
from tests.harness.forks import die_with_parent

_LISTS = Path("/etc/apt")


def mirror() -> str:
    """The machine's own mirror of Debian. Raises Missing."""
    for uri in _uris():
        # Security updates are a repository of their own, and hold no whole system.
        if "debian" in uri and "security" not in uri:
            return uri
    raise Missing(
        f"no mirror of Debian is named in {_LISTS}: a base image needs one, so use CLUSTER=kubeconfig"
    )


def install_into(folder: Path, *, suite: str, packages: Iterable[str]) -> None:
    command = [
        "debootstrap",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        suite,
        str(folder),
        mirror(),
    ]
    done = subprocess.run(
        # It mounts file systems below the folder; in a namespace they end with it, also when it is killed.
        ["nice", "-n", "10", "unshare", "--mount", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        preexec_fn=die_with_parent,
    )
    if done.returncode:
        raise Missing(f"debootstrap failed: {' / '.join(done.stdout.splitlines()[-3:])}")


def _uris() -> Iterator[str]:
    for path in [_LISTS / "sources.list", *sorted((_LISTS / "sources.list.d").glob("*"))]:
        if path.suffix not in (".list", ".sources") or not path.exists():
            continue
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] == ["URIs:"]:
                yield from words[1:]
            elif words[:1] == ["deb"]:
                # "deb [options] uri suite component…"
                yield next(word for word in words[1:] if "://" in word or word.startswith("file:"))
