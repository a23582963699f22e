"""What operators do to an installation, each story with what it may cost the applications."""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from tests.cluster import crashes, drains, images, outages, rotation
from tests.cluster.access import Failed
from tests.cluster.bounds import (
    CRASH,
    DRAIN,
    PRIMARY_AWAY,
    REDIS_AWAY,
    REDIS_RESTARTS,
    ROLLOUT,
    WATCHED,
    Bounds,
    Outcome,
    judge,
)
from tests.cluster.caller import Waiting
from tests.cluster.custom_metrics import follow_their_metrics
from tests.cluster.earlier import (
    on_an_earlier_release,
    on_an_earlier_release_outside,
    on_an_upgraded_release,
    roll_back_to_it,
    upgrade_from_it,
)
from tests.cluster.elsewhere import kill_a_primary, on_a_small_node, on_redis_cluster, upgrade_a_small_one
from tests.cluster.faults import alerts, drains_are_seen
from tests.cluster.front import front
from tests.cluster.image_story import image
from tests.cluster.load import Amount, under_load
from tests.cluster.policies import network_policies
from tests.cluster.release import FULL_NAME, RELEASE, SERVICES, Release, is_hook, is_ready
from tests.cluster.variants import autoscaling, external_redis
from tests.cluster.volumes import grow, on_a_growable_volume

_AFTERWARDS_S = 3
"""What an action leaves running, such as endpoints that are still changing, belongs to its story."""


@dataclass(frozen=True, slots=True)
class Story:
    """`act` does something to a running release, and returns notes. Bounds: it happens under load."""

    act: Callable[[Release], list[str]]
    bounds: Bounds | None = None
    needs_own: bool = False
    """It needs the node, not only the API."""
    elsewhere: Callable[[Release], AbstractContextManager[Release]] | None = None
    """Another installation, to which it happens."""


def install(release: Release) -> list[str]:
    release.prepare()
    said = release.install()
    restarts = [
        f"{pod['metadata']['name']} restarted {status['restartCount']} times"
        for pod in release.pods()
        for status in pod["status"]["containerStatuses"]
        if status["restartCount"]
    ]
    if not all(map(is_ready, release.pods())):
        raise Failed("Helm returned before all pods were ready")
    return restarts + [line for line in said.splitlines() if "Warning" in line]


def helm_test(release: Release) -> list[str]:
    said = release.test()
    if "received the published event" not in said:
        raise Failed(f"the test's log does not say that it received its event: {said[-300:]}")
    return []


def upgrade(release: Release) -> list[str]:
    release.upgrade(f"--set=image.tag={images.UPGRADE_TAG}")
    release.wait_rolled_out()
    release.expect_image(images.UPGRADE_TAG)
    return []


def rollback(release: Release) -> list[str]:
    release.rollback()
    release.wait_rolled_out()
    release.expect_image(images.app_version())
    return []


def restart(release: Release) -> list[str]:
    """As after a change of a Secret."""
    release.restart(*SERVICES)
    return []


def delete_each(release: Release) -> list[str]:
    for service in SERVICES:
        _delete(release, service)
    return []


def delete_each_at_once(release: Release) -> list[str]:
    for service in SERVICES:
        _delete(release, service, "--grace-period=0", "--force")
    return []


def delete_redis(release: Release) -> list[str]:
    _delete(release, "redis")
    return []


def kill_each(release: Release) -> list[str]:
    for service in SERVICES:
        crashes.kill_container(release, service)
        release.wait_ready(service)
    return []


def kill_redis(release: Release) -> list[str]:
    crashes.kill_container(release, "redis")
    release.wait_ready("redis")
    return []


def scale(release: Release) -> list[str]:
    """Twice as many gateways and edges, then one each, and back."""
    for count in (4, 1, 2):
        for service in ("gateway", "socket-edge"):
            release.kubectl("scale", f"deployment/{FULL_NAME}-{service}", f"--replicas={count}")
        for service in ("gateway", "socket-edge"):
            release.wait_ready(service, count=count)
    return []


def uninstall(release: Release) -> list[str]:
    """Only the claim of the volume with acknowledged publishes may be left, and what is marked to be kept."""
    release.uninstall()
    # Helm waits for what it has created; pods end in the background.
    release.wait("the end of all pods", lambda: not any(map(release.pods, (*SERVICES, "redis"))))
    kinds = "all,configmaps,secrets,serviceaccounts,networkpolicies,poddisruptionbudgets,ingresses"
    label = f"--selector=app.kubernetes.io/instance={RELEASE}"
    left: list[str] = []
    kept: list[str] = []
    for item in release.get(kinds, label)["items"]:
        marks = item["metadata"].get("annotations", {})
        stays = marks.get("helm.sh/resource-policy") == "keep" or is_hook(item)
        (kept if stays else left).append(f"{item['kind']}/{item['metadata']['name']}")
    claims = [item["metadata"]["name"] for item in release.get("persistentvolumeclaims")["items"]]
    if claims != [f"data-{FULL_NAME}-redis-0"]:
        raise Failed(f"the claims after an uninstall are {claims}")
    if left:
        raise Failed(f"an uninstall left {', '.join(left)}")
    return [f"kept: {', '.join([*(f'claim {claim}' for claim in claims), *kept])}"]


def install_again(release: Release) -> list[str]:
    """What an uninstall keeps is enough: no secret is a new one, and what was pending arrives."""
    waiting = Waiting(release)
    token = release.admin_token()
    notes = uninstall(release)
    notes += install(release)
    if release.admin_token() != token:
        raise Failed("the second installation has another admin token")
    waiting.take()
    return notes + helm_test(release)


STORIES = {
    "install": Story(install),
    "helm test": Story(helm_test),
    "roll-out restart": Story(restart, ROLLOUT),
    "upgrade": Story(upgrade, ROLLOUT),
    "rollback": Story(rollback, ROLLOUT),
    "delete a pod of each": Story(delete_each, ROLLOUT),
    "delete without grace": Story(delete_each_at_once, CRASH),
    "kill -9 a container of each": Story(kill_each, CRASH, needs_own=True),
    "delete the pod of Redis": Story(delete_redis, CRASH),
    "kill -9 Redis": Story(kill_redis, CRASH, needs_own=True),
    "Redis away": Story(outages.redis_away, REDIS_AWAY),
    "Redis hangs": Story(outages.redis_hangs, REDIS_AWAY, needs_own=True),
    "drain the node": Story(drains.evict_each, DRAIN),
    "rotate secrets": Story(rotation.rotate, CRASH),
    "scale up and down": Story(scale, ROLLOUT),
    "network policies": Story(network_policies, needs_own=True),
    "external Redis": Story(external_redis, needs_own=True),
    "Redis Cluster over TLS": Story(kill_a_primary, PRIMARY_AWAY, needs_own=True, elsewhere=on_redis_cluster),
    "small node": Story(upgrade_a_small_one, ROLLOUT, needs_own=True, elsewhere=on_a_small_node),
    "autoscaling": Story(autoscaling, ROLLOUT, needs_own=True),
    "autoscaling by own metrics": Story(follow_their_metrics, ROLLOUT, needs_own=True),
    "alerts": Story(alerts, needs_own=True),
    "drains are seen": Story(drains_are_seen, WATCHED, needs_own=True),
    "grow the volume": Story(grow, ROLLOUT, needs_own=True, elsewhere=on_a_growable_volume),
    "image": Story(image, needs_own=True),
    "upgrade from an earlier release": Story(
        upgrade_from_it, REDIS_RESTARTS, needs_own=True, elsewhere=on_an_earlier_release
    ),
    "the same on an external Redis": Story(
        upgrade_from_it, ROLLOUT, needs_own=True, elsewhere=on_an_earlier_release_outside
    ),
    "rollback to an earlier release": Story(
        roll_back_to_it, ROLLOUT, needs_own=True, elsewhere=on_an_upgraded_release
    ),
    "install again": Story(install_again),
    "uninstall": Story(uninstall),
}


def tell(name: str, release: Release, amount: Amount, *, proxy: str) -> Outcome:
    """Runs one story; what goes wrong is in the outcome."""
    story, outcome = STORIES[name], Outcome(name)
    began_s = time.monotonic()
    with _noted(outcome):
        if story.needs_own and not release.cluster.own:
            outcome.notes.append("left out: it needs a node of our own")
        elif story.bounds is None:
            outcome.notes += story.act(release)
        else:
            with nullcontext(release) if story.elsewhere is None else story.elsewhere(release) as target:
                log = f"load-{name.replace(' ', '-')}"
                with (
                    front(target, kind=proxy) as origin,
                    under_load(target, origin, amount, name=log) as load,
                ):
                    outcome.notes += story.act(target)
                    time.sleep(_AFTERWARDS_S)
                judge(outcome, load.line, story.bounds)
    outcome.seconds = time.monotonic() - began_s
    return outcome


@contextlib.contextmanager
def _noted(outcome: Outcome) -> Iterator[None]:
    try:
        yield
    except Failed as error:
        outcome.problems.append(str(error))


def _delete(release: Release, component: str, *how: str) -> None:
    name = release.pod(component)
    before = _uids(release, component)
    release.kubectl("delete", f"pod/{name}", "--wait=false", *how)
    # The pod of a StatefulSet has the same name again.
    release.wait(f"another {name}", lambda: bool(_uids(release, component) - before))
    release.wait_ready(component)


def _uids(release: Release, component: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in release.pods(component)}
