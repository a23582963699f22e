"""The secrets that the chart has made, replaced as docs/operations.md, "Rotate secrets", says."""

import base64
import json
import secrets
import urllib.parse

from tests.cluster.access import Failed
from tests.cluster.release import FULL_NAME, SERVICES, Release
from tests.deploy.files import PORTS

_REDIS = f"{FULL_NAME}-redis"


def rotate(release: Release) -> list[str]:
    """The admin token and the password of the chart's Redis, under load."""
    before = release.admin_token()
    _patch(release, {"admin-token": (after := secrets.token_urlsafe(30))})
    release.restart("gateway")
    for what, token, wanted in (("old", before, 401), ("new", after, 200)):
        if (status := _status_of(release, token)) != wanted:
            raise Failed(f"the {what} admin token got {status} and not {wanted}")
    _rotate_password(release)
    if "received the published event" not in release.test():
        raise Failed("after the rotations the test does not receive its event")
    if (kept := release.admin_token()) != after:
        raise Failed(f"the admin token is another one again: {len(kept)} characters")
    return []


def _rotate_password(release: Release) -> None:
    old = base64.b64decode(release.get("secret", FULL_NAME)["data"]["redis-password"]).decode()
    new = secrets.token_urlsafe(30)
    # Both are valid until Redis restarts.
    ask_redis(release, "ACL", "SETUSER", "default", f">{new}")
    _patch(
        release,
        {
            "redis-password": new,
            "auth.conf": f"requirepass {new}\n",
            "redis-url": f"redis://:{urllib.parse.quote(new, safe='')}@{_REDIS}:6379/0",
        },
    )
    release.restart(*SERVICES)
    release.kubectl("rollout", "restart", f"statefulset/{_REDIS}")
    release.kubectl("rollout", "status", f"statefulset/{_REDIS}", "--timeout=120s")
    release.wait_ready("redis", count=1)
    said = ask_redis(release, "AUTH", old)
    if "WRONGPASS" not in said:
        raise Failed(f"Redis still takes its old password: {said.strip()}")


def ask_redis(release: Release, *command: str) -> str:
    """What valkey-cli prints, in the pod of Redis, with the pod's own password."""
    return release.kubectl("exec", f"{_REDIS}-0", "--", "sh", "-c", 'valkey-cli "$@" 2>&1', "sh", *command)


def _patch(release: Release, values: dict[str, str]) -> None:
    given = {"stringData": values}
    release.kubectl("patch", "secret", FULL_NAME, f"--patch={json.dumps(given)}")


def _status_of(release: Release, token: str) -> int:
    url = f"http://{release.address('gateway', PORTS['gateway'])}/v1/accounts"
    asked = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]
    return int(release.cluster.run(*asked, "--header", f"Authorization: Bearer {token}", url))
