"""A Redis on the node that is not the cluster's, for releases with `redis.url`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.access import Cluster
from tests.cluster.places import CHECKOUT, NODE_IP, scratch
from tests.harness.valkey import server_binary

_PASSWORD = "external"
_PORT = 6379
_RIGHTS = CHECKOUT / "deploy" / "redis" / "users.acl"


@contextlib.contextmanager
def outside_redis(cluster: Cluster, *, user: str = "") -> Iterator[str]:
    """Its URL. A user has the rights of deploy/redis/users.acl, and there is no other."""
    with scratch("redis") as folder:
        settings = {"bind": NODE_IP, "port": str(_PORT), "dir": folder, "save": ""}
        if user:
            path = Path(folder, "users.acl")
            path.write_text(_users(user))
            settings["aclfile"] = str(path)
        else:
            settings["requirepass"] = _PASSWORD
        options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        redis = cluster.start(server_binary(), *options, log="external-redis")
        try:
            yield f"redis://{user}:{_PASSWORD}@{NODE_IP}:{_PORT}/0"
        finally:
            redis.terminate()
            redis.wait(10)


def _users(user: str) -> str:
    """The lines of an ACL file, as docs/operations.md says to make them."""
    off, on = f"user {user} off ", f"user {user} on >{_PASSWORD} "
    [line] = [line for line in _RIGHTS.read_text().splitlines() if line.startswith(off)]
    return f"user default off\n{line.replace(off, on)}\n"
