"""Pods that are evicted, as `kubectl drain` does it: by the API that asks the disruption budgets."""

import json

from tests.cluster.access import Failed
from tests.cluster.release import SERVICES, Release


def evict_each(release: Release) -> list[str]:
    """Every pod of every service. The second of two must wait for the first's successor."""
    notes = []
    for service in SERVICES:
        pods = [pod["metadata"]["name"] for pod in release.pods(service)]
        for number, name in enumerate(pods):
            _evict(release, name)
            for other in pods[number + 1 :]:
                _expect_refusal(release, other)
                notes.append(service)
            release.kubectl("wait", f"pod/{name}", "--for=delete", "--timeout=180s")
            release.wait_ready(service, count=len(pods))
    return [f"budgets refused a second eviction of {', '.join(notes)}"]


def _evict(release: Release, name: str) -> None:
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": release.namespace},
    }
    path = f"/api/v1/namespaces/{release.namespace}/pods/{name}/eviction"
    release.cluster.kubectl("create", f"--raw={path}", "--filename=-", given=json.dumps(eviction))


def _expect_refusal(release: Release, name: str) -> None:
    try:
        _evict(release, name)
    except Failed as error:
        if "disruption budget" in str(error):
            return
        raise
    raise Failed(f"{name} could be evicted although the only other pod of its kind had just gone")
