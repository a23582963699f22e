"""From an earlier release's chart, image and data to this one's, and back."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import history, images
from tests.cluster.access import Failed
from tests.cluster.caller import Waiting
from tests.cluster.elsewhere import installed
from tests.cluster.places import CHART, CHECKOUT, scratch
from tests.cluster.release import SMALL, Release


@contextlib.contextmanager
def on_an_earlier_release(release: Release) -> Iterator[Release]:
    """Installed from its own chart, with the image of its own."""
    with scratch("earlier") as folder:
        history.extract(Path(folder), str(CHART.relative_to(CHECKOUT)))
        values = (f"--values={SMALL}", f"--set=image.tag={images.EARLIER_TAG}")
        other = Release(release.cluster, "notify-earlier", values, Path(folder) / CHART.relative_to(CHECKOUT))
        # Its test's pod was deleted before Helm read the log.
        with installed(other, volumes=1, with_test=False):
            other.expect_image(images.EARLIER_TAG)
            yield other


@contextlib.contextmanager
def on_an_upgraded_release(release: Release) -> Iterator[Release]:
    """The same, after an upgrade."""
    with on_an_earlier_release(release) as other:
        _upgrade(other)
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
