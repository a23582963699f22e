"""Requests to a release from where Services have their addresses, and notifications that wait meanwhile."""

import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

from tests.cluster.access import Failed
from tests.cluster.release import Release
from tests.deploy.files import PORTS

PULL = "/v2/notification/pull"
_WITHIN_S = 60
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def call(
    release: Release, method: str, path: str, *, token: str, body: object = None, service: str = "gateway"
) -> Response:
    """One request to a service of the release. Raises Failed when nothing answers."""
    url = f"http://{release.address(service, PORTS[service])}{path}"
    asked = ["curl", "--silent", "--max-time", "20", "--write-out", "\n%{http_code}", "--request", method]
    # A token on the command line would be in the machine's list of processes.
    headers = [f"Authorization: Bearer {token}", "Content-Type: application/json"]
    given = "".join(f'header = "{header}"\n' for header in headers)
    if body is not None:
        given += f"data = {json.dumps(json.dumps(body))}\n"
    said = release.cluster.run(*asked, "--config", "-", url, given=given)
    text, _, status = said.rpartition("\n")
    return Response(int(status), text)


def expect(
    release: Release, wanted: int, method: str, path: str, *, token: str, body: object = None
) -> Response:
    """A request to the gateway with this status. Raises Failed with any other."""
    response = call(release, method, path, token=token, body=body)
    if response.status != wanted:
        raise Failed(f"{method} {path}: {response.status} and not {wanted}: {response.text[:300]}")
    return response


class Waiting:
    """Notifications of a channel that stay unread until `take`."""

    def __init__(self, release: Release, *, count: int = 200) -> None:
        self._release = release
        admin = release.admin_token()
        account = expect(release, 201, "POST", "/v1/accounts", token=admin, body={"name": "waiting"})
        wanted = {"name": "waiting", "scopes": ["publish", "receive"]}
        path = f"/v1/accounts/{account.json['id']}/api-keys"
        key = expect(release, 201, "POST", path, token=admin, body=wanted).json
        self._key_id, self._secret = str(key["id"]), str(key["secret"])
        # The first poll creates the channel.
        if (first := self._poll()).status != 204:
            raise Failed(f"the first poll: {first.status} and not 204: {first.text[:300]}")
        self.payloads = [uuid.uuid4().hex for _ in range(count)]
        self.publish(self.payloads)

    def publish(self, payloads: list[str]) -> None:
        """Publishes them to the channel, which keeps them."""
        to = {"topic": "device.notifications", "to": self._key_id}
        events = [{**to, "data": _notification(payload)} for payload in payloads]
        answer = expect(self._release, 202, "POST", "/v1/events", token=self._secret, body=events).json
        if any(event["channels"] != 1 for event in answer["events"]):
            raise Failed(f"the channel that waits did not get what was published: {str(answer)[:300]}")

    def take(self) -> None:
        """Reads everything. Raises Failed unless it all comes, in order, and nothing twice."""
        got: list[str] = []
        deadline = time.monotonic() + _WITHIN_S
        while len(got) < len(self.payloads) and time.monotonic() < deadline:
            response = self._poll()
            if response.status == 200:
                got += [each["payload"] for each in response.json["notifications"]]
            else:
                time.sleep(_POLL_S)
        if got != self.payloads:
            missing = len(set(self.payloads) - set(got))
            raise Failed(
                f"of {len(self.payloads)} notifications that waited {missing} did not come, "
                f"and {len(got) - len(set(got))} came twice"
            )

    def _poll(self) -> Response:
        path = f"{PULL}?noWait=true"
        return call(self._release, "GET", path, token=self._secret, service="socket-edge")


def _notification(payload: str) -> dict[str, str]:
    return {"ep": "waiting", "path": "/3303/0/5700", "ct": "text/plain", "payload": payload}
