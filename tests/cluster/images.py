"""Images of the gateway and of what the chart runs beside it, as archives; no registry is asked."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster import debian, history
from tests.cluster.places import CACHE, CHART, CHECKOUT, HERE, IMAGES, PROGRAMS, scratch
from tests.cluster.requirements import Missing
from tests.harness.valkey import server_binary

DOCKERFILE = CHECKOUT / "deploy" / "Dockerfile"
REPOSITORY = "docker.io/library/notification-gateway"
UPGRADE_TAG = "0.0.0-upgrade"
"""The same image by another name: an upgrade to it replaces every pod."""
EARLIER_TAG = "0.0.0-earlier"
"""The image of an earlier release."""
PAUSE = "registry.k8s.io/pause:3.10"
_NOT_IN_BASE = ("proc/*", "var/cache/*", "var/lib/apt/lists/*", "usr/share/doc/*", "usr/share/man/*")
# Layers of older images speed up the next build; these are too old for that.
_OUTDATED = "until=168h"
_CERTIFICATES = Path("/etc/ssl/certs")
# Podman refuses a path of more than 50 characters here.
_PODMAN_STATE = Path("/run/notification-gateway-podman")


@dataclass(frozen=True, slots=True)
class Image:
    """An archive, what it is made from, and how."""

    archive: str
    inputs: Sequence[Path | str]
    make: Callable[[], Sequence[str]]
    """Puts the image into podman's storage; returns its names."""
    for_podman: bool = False
    """No container runs from it, so it needs no archive."""


def build_all() -> None:
    """Builds the images whose inputs have changed."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    base = Image("base", [_base_name(), HERE / "debian.py"], _base, for_podman=True)
    server = [HERE / "valkey.Containerfile", CHART / "values.yaml", Path(server_binary())]
    code = [CHECKOUT / name for name in ("requirements.txt", "services", "shared", "deploy/health_check.py")]
    # A shallow clone lacks it; the story that needs it says so.
    earlier = [Image("earlier", [*base.inputs, history.COMMIT], _earlier)] if history.is_here() else []
    for image in (
        base,
        *earlier,
        Image("pause", [HERE / "programs" / "pause"], _pause),
        Image("valkey", [*base.inputs, *server], _valkey),
        Image("gateway", [*base.inputs, DOCKERFILE, *code], _gateway),
    ):
        _build(image)
    shutil.rmtree(_PODMAN_STATE, ignore_errors=True)


def archives() -> list[Path]:
    """What containerd imports."""
    return sorted(IMAGES.glob("*.tar"))


def app_version() -> str:
    return str(yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"])


def _build(image: Image) -> None:
    archive, stamp = IMAGES / f"{image.archive}.tar", IMAGES / f"{image.archive}.built-from"
    now = _fingerprint(image.inputs)
    done = image.for_podman or archive.exists()
    if done and stamp.exists() and stamp.read_text() == now:
        return
    print(f"building the image {image.archive}", flush=True)
    stamp.unlink(missing_ok=True)
    names = image.make()
    if not image.for_podman:
        # Docker's format keeps the HEALTHCHECK, which the other one does not know.
        part = archive.with_suffix(".part")
        part.unlink(missing_ok=True)
        _podman("save", "--format=docker-archive", "--multi-image-archive", f"--output={part}", *names)
        part.replace(archive)
        _podman("image", "prune", "--force", "--filter", _OUTDATED)
    stamp.write_text(now)


def _base() -> Sequence[str]:
    """The Dockerfile's own base image, by its very name, from Debian's packages."""
    name = _base_name()
    suite = name.rpartition("-")[2]
    with scratch("image") as folder:
        packages = ["ca-certificates", "python3", "python-is-python3", "python3-pip", "python3-venv"]
        debian.install_into(Path(folder), suite=suite, packages=packages)
        archive = Path(folder).with_suffix(".tar")
        try:
            without = [f"--exclude=./{path}" for path in _NOT_IN_BASE]
            subprocess.run(["tar", "-C", folder, *without, "-cf", str(archive), "."], check=True)
            _podman("import", str(archive), name)
        finally:
            archive.unlink(missing_ok=True)
    return [name]


def _base_name() -> str:
    """As in docker.io/library/python:3.11-slim-bookworm."""
    name = re.search(r"^ARG PYTHON=(\S+)$", DOCKERFILE.read_text(), flags=re.M)
    assert name is not None, "the Dockerfile names its base image"
    return f"docker.io/library/{name[1]}"


def _pause() -> Sequence[str]:
    with scratch("image") as folder:
        shutil.copy(PROGRAMS / "pause", folder)
        Path(folder, "Containerfile").write_text('FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n')
        _podman_build("--tag", PAUSE, folder)
    return [PAUSE]


def _valkey() -> Sequence[str]:
    name = "docker.io/" + yaml.safe_load((CHART / "values.yaml").read_text())["redis"]["own"]["image"]
    with scratch("image") as folder:
        shutil.copy(server_binary(), Path(folder, "valkey-server"))
        shutil.copy(HERE / "valkey.Containerfile", Path(folder, "Containerfile"))
        _podman_build("--tag", name, folder)
    return [name]


def _gateway() -> Sequence[str]:
    names = [f"{REPOSITORY}:{tag}" for tag in (app_version(), UPGRADE_TAG)]
    tags = [word for name in names for word in ("--tag", name)]
    _podman_build(*tags, "--file", str(DOCKERFILE), str(CHECKOUT))
    return names


def _earlier() -> Sequence[str]:
    name = f"{REPOSITORY}:{EARLIER_TAG}"
    with scratch("image") as folder:
        history.extract(Path(folder), "deploy", "requirements.txt", "services", "shared")
        _podman_build("--tag", name, "--file", f"{folder}/deploy/Dockerfile", folder)
    return [name]


def build_again(name: str, *, timestamp: str) -> str:
    """Builds the gateway's image without a cache; returns its digest. `timestamp`: of all that it writes.

    In the OCI's format: Docker's has the name of the container that built it.
    """
    plain = ("--format", "oci", "--no-cache", "--layers=false", "--timestamp", timestamp)
    _podman_build(*plain, "--tag", name, "--file", str(DOCKERFILE), str(CHECKOUT))
    return _podman("image", "inspect", "--format", "{{.Digest}}", name).strip()


def save(name: str, archive: Path) -> None:
    _podman("save", "--format=docker-archive", f"--output={archive}", name)


def layers_of(archive: tarfile.TarFile) -> list[str]:
    """The members of an image's archive that are its layers, the base first."""
    manifest = archive.extractfile("manifest.json")
    assert manifest is not None
    [described] = json.load(manifest)
    return list(described["Layers"])


def _podman_build(*arguments: str) -> None:
    # The machine may reach its package index through a proxy with a certificate of its own.
    own = ("--volume", f"{_CERTIFICATES}:{_CERTIFICATES}:ro") if _CERTIFICATES.is_dir() else ()
    chroot = ("--format", "docker", "--isolation", "chroot", "--network", "host", "--pull=missing")
    _podman("build", *chroot, *own, *arguments)


def _podman(*arguments: str) -> str:
    """Podman with a storage of its own: the machine's images stay as they are. Returns what it prints."""
    storage = ["--root", str(CACHE / "podman"), "--runroot", str(_PODMAN_STATE)]
    own = [*storage, "--cgroup-manager", "cgroupfs", "--runtime", "runc"]
    done = subprocess.run(
        ["nice", "-n", "10", "podman", *own, *arguments],
        # The default limits need a capability that a container's root may lack.
        env=os.environ | {"CONTAINERS_CONF": str(HERE / "containers.conf")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Missing(f"podman {arguments[0]} failed: {' / '.join(done.stdout.splitlines()[-6:])}")
    return done.stdout


def _fingerprint(inputs: Sequence[Path | str]) -> str:
    whole = hashlib.sha256((HERE / "images.py").read_bytes())
    for path in inputs:
        if isinstance(path, str):
            whole.update(path.encode() + b"\0")
            continue
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                # Names within the checkout: every checkout shares what is built.
                name = str(file.relative_to(path.parent)).encode()
                whole.update(name + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()
