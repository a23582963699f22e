"""From an earlier release's chart, image and data to this one's, and back."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import history, images
from tests.cluster.access import Failed
from tests.cluster.caller import Waiting
from tests.cluster.elsewhere import installed
from tests.cluster.outside_redis import outside_redis
from tests.cluster.places import CHART, CHECKOUT, NODE_IP, scratch
from tests.cluster.release import SMALL, Release


@contextlib.contextmanager
def on_an_earlier_release(release: Release) -> Iterator[Release]:
    """Installed from its own chart, with its own image and the chart's Redis."""
    with _earlier(release, volumes=1) as other:
        yield other


@contextlib.contextmanager
def on_an_earlier_release_outside(release: Release) -> Iterator[Release]:
    """The same on a Redis that no upgrade restarts, with the rights of today, as the CHANGELOG says."""
    with (
        outside_redis(release.cluster, user="notify-all") as url,
        _earlier(release, f"--set=redis.own.enabled=false,redis.url={url}", volumes=0) as other,
    ):
        yield other


@contextlib.contextmanager
def on_an_upgraded_release(release: Release) -> Iterator[Release]:
    """The last, after an upgrade."""
    with on_an_earlier_release_outside(release) as other:
        _upgrade(other)
        yield other


@contextlib.contextmanager
def _earlier(release: Release, *more: str, volumes: int) -> Iterator[Release]:
    with scratch("earlier") as folder:
        history.extract(Path(folder), str(CHART.relative_to(CHECKOUT)))
        # A network of one address: that chart makes an invalid policy of an address alone.
        open_way = f"--set-string=settings.ALLOW_PRIVATE_CALLBACKS={NODE_IP}/32"
        values = (f"--values={SMALL}", f"--set=image.tag={images.EARLIER_TAG}", open_way, *more)
        other = Release(release.cluster, "notify-earlier", values, Path(folder) / CHART.relative_to(CHECKOUT))
        # Its test's pod was deleted before Helm read the log.
        with installed(other, volumes=volumes, with_test=False):
            other.expect_image(images.EARLIER_TAG)
            yield other


def upgrade_from_it(release: Release) -> list[str]:
    """As the CHANGELOG says. What waits in Redis was written by the earlier release."""
    waiting = Waiting(release)
    _upgrade(release)
    waiting.take()
    return [
        f"{len(waiting.payloads)} notifications of the earlier release waited, and came after the upgrade"
    ]


def roll_back_to_it(release: Release) -> list[str]:
    """What waits in Redis was written by this release, and is read by the earlier one."""
    waiting = Waiting(release)
    release.rollback()
    release.wait_rolled_out()
    release.expect_image(images.EARLIER_TAG)
    waiting.take()
    return [f"{len(waiting.payloads)} notifications waited, and came after the rollback"]


def _upgrade(release: Release) -> None:
    release.chart, release.values = CHART, ()
    release.upgrade("--reset-then-reuse-values", f"--set=image.tag={images.app_version()}")
    release.wait_rolled_out()
    release.expect_image(images.app_version())
    if "received the published event" not in release.test():
        raise Failed("after the upgrade the test does not receive its event")
