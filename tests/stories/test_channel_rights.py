"""Who may do what with which channel: every caller, object and verb."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.harness.api import Api, ApiKey, Response
from tests.harness.channels import Sockets
from tests.harness.stack import Stack

NOTHING_POSTED: dict[str, Any] = {}
# Each verb: method, what is behind the channel, the body, and the response to who may.
VERBS: dict[str, tuple[str, str, Any, int]] = {
    "get": ("GET", "", None, 200),
    "change": ("PATCH", "", {"customer": "c"}, 200),
    "change nothing": ("PATCH", "", NOTHING_POSTED, 200),
    "pause": ("POST", "/pause", None, 204),
    "resume": ("POST", "/resume", None, 204),
    "purge": ("POST", "/purge", None, 200),
    "get its deliveries": ("GET", "/deliveries", None, 200),
    "get one delivery": ("GET", "/deliveries/1-0", None, 404),
    "get its signing secret": ("GET", "/signing-secret", None, 200),
    "make a signing secret": ("POST", "/secrets", {"overlap_s": 5}, 201),
    "import a signing secret": ("POST", "/secrets", {"secret": f"whsec_{'A' * 32}"}, 201),
    "list its signing secrets": ("GET", "/secrets", None, 200),
    "end a signing secret": ("DELETE", "/secrets/{older}", None, 204),
    "fetch": ("POST", "/fetch", None, 200),
    "ack": ("POST", "/ack", {"lease": "of no fetch", "until": "1-0"}, 409),
    "nack": ("POST", "/nack", {"lease": "of no fetch", "entry": "1-0"}, 409),
    "resend": ("POST", "/resend", {"event_id": "never retained"}, 404),
    "replay": ("POST", "/replay", {"since": "2026-01-01T00:00:00Z"}, 202),
    "get its replay": ("GET", "/replay", None, 404),
    "cancel its replay": ("DELETE", "/replay", None, 404),
    "delete": ("DELETE", "", None, 204),
}
MAY, SCOPE, HIDDEN, WHO = "may", 403, 404, 401
# The channels of API keys: only their keys change them.
OF_A_KEY = ("of the key with receive", "of another key")
OBJECTS = ("native by id", "native by name", "native pull", "native webhook", *OF_A_KEY)
# Only of native channels.
ONCE_MORE = ("resend", "replay")
# Only of native pull channels.
PULL = ("fetch", "ack", "nack")
# Of native webhooks, and of API keys: they have theirs before their webhooks.
SECRETS = {"make a signing secret": 409, "import a signing secret": 409, "end a signing secret": 404}
SIGNING = ("native webhook", *OF_A_KEY)
# Of the native channels that are no WebSocket's.
KINDS = {"native pull": "pull", "native webhook": "webhook"}
# What each caller gets for each object, in this order; `list` and `create` are of the caller's own account.
CALLERS: dict[str, tuple[object, ...]] = {
    "an admin of the account": (MAY, MAY, MAY, MAY, MAY, MAY),
    "a key with channels": (MAY, MAY, MAY, MAY, MAY, MAY),
    "a key with receive": (SCOPE, SCOPE, SCOPE, SCOPE, MAY, SCOPE),
    "a key with publish": (SCOPE, SCOPE, SCOPE, SCOPE, SCOPE, SCOPE),
    "an admin of another account": (HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    "an admin of the parent": (HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    "an admin of a child": (HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    "a key with channels of another account": (HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    "a revoked key": (WHO, WHO, WHO, WHO, WHO, WHO),
    "a stranger": (WHO, WHO, WHO, WHO, WHO, WHO),
    "the operator": (MAY, MAY, MAY, MAY, MAY, MAY),
}
LISTS = {
    "an admin of the account": 200,
    "a key with channels": 200,
    "a key with receive": 403,
    "a key with publish": 403,
    "a revoked key": 401,
    "a stranger": 401,
    "the operator": 200,
}


@dataclass
class Scene:
    """An account between its parent and its child, and one stranger."""

    api: Api
    account: str
    callers: dict[str, ApiKey | None]
    other: ApiKey
    names: int = 0

    async def call(self, caller: str, method: str, path: str, **content: Any) -> Response:
        if caller == "the operator":
            return await self.api.admin(method, f"{path}?account={self.account}", **content)
        return await self.api.call(method, path, key=self.callers[caller], **content)

    async def object(self, what: str) -> str:
        """The channel as the path names it; made again if it was deleted."""
        if what in OF_A_KEY:
            owner = self.callers["a key with receive"] if what == OF_A_KEY[0] else self.other
            assert owner is not None
            await self.api.register(owner)
            return f"ch_{owner.id}"
        self.names += 1
        body: dict[str, Any] = {"kind": KINDS.get(what, "websocket"), "name": f"n{self.names}"}
        if what == "native webhook":
            body["webhook"] = {"url": "https://example.com/hook"}
        made = await self.api.admin("POST", f"/v1/channels?account={self.account}", json=body)
        assert made.status == 201, made.text
        return str(body["name"] if what == "native by name" else made.json["id"])

    async def older_secret(self, what: str, channel: str) -> str:
        """The id of a signing secret that may be ended."""
        if what not in SIGNING:
            return "sec_none"
        path = f"/v1/channels/{channel}/secrets?account={self.account}"
        for _ in range(2):
            made = await self.api.admin("POST", path, json={})
            assert made.status == 201, made.text
        return str((await self.api.admin("GET", path)).json["secrets"][1]["id"])


@pytest.fixture
async def scene(api: Api) -> Scene:
    parent = await api.account()
    account = await api.account(parent=parent)
    child, stranger = await api.account(parent=account), await api.account()

    async def key(of: str, *scopes: str) -> ApiKey:
        return await api.api_key(account=of, scopes=scopes)

    revoked = await key(account, "admin", "channels")
    await api.revoke(revoked)
    callers: dict[str, ApiKey | None] = {
        "an admin of the account": await key(account, "admin"),
        "a key with channels": await key(account, "channels"),
        "a key with receive": await key(account, "receive"),
        "a key with publish": await key(account, "publish"),
        "an admin of another account": await key(stranger, "admin", "receive"),
        "an admin of the parent": await key(parent, "admin", "receive"),
        "an admin of a child": await key(child, "admin", "receive"),
        "a key with channels of another account": await key(stranger, "channels"),
        "a revoked key": revoked,
        "a stranger": None,
    }
    return Scene(api, account, callers, await key(account, "receive"))


@pytest.mark.parametrize("caller", CALLERS)
async def test_every_verb_on_every_object(scene: Scene, caller: str) -> None:
    got: dict[tuple[str, str], int] = {}
    wanted: dict[tuple[str, str], object] = {}
    for what, may in zip(OBJECTS, CALLERS[caller], strict=True):
        for verb, (method, rest, body, success) in VERBS.items():
            channel = await scene.object(what)
            path = f"/v1/channels/{channel}{rest}"
            if "{older}" in path:
                path = path.replace("{older}", await scene.older_secret(what, channel))
            response = await scene.call(caller, method, path, json=body)
            got[what, verb] = response.status
            wanted[what, verb] = success if may == MAY else may
            if may == MAY and verb == "change" and what in OF_A_KEY:
                wanted[what, verb] = 409
            if may == MAY and verb in ONCE_MORE and what in OF_A_KEY:
                wanted[what, verb] = 409
            if may == MAY and verb in SECRETS and what not in SIGNING:
                wanted[what, verb] = SECRETS[verb]
            if may == MAY and verb in PULL and what != "native pull":
                wanted[what, verb] = 409

    assert got == wanted


@pytest.mark.parametrize("caller", LISTS)
async def test_lists_and_creations(scene: Scene, caller: str) -> None:
    status = LISTS[caller]
    listed = await scene.call(caller, "GET", "/v1/channels")
    created = await scene.call(caller, "POST", "/v1/channels", json={"kind": "pull"})

    assert (listed.status, created.status) == (status, 201 if status == 200 else status)


async def test_only_the_operator_names_another_account(scene: Scene) -> None:
    for caller in CALLERS.keys() - {"the operator", *LISTS}:
        for method, body in (("GET", None), ("POST", {"kind": "pull"})):
            path = f"/v1/channels?account={scene.account}"
            response = await scene.api.call(method, path, key=scene.callers[caller], json=body)
            assert response.status == 404, (caller, method)


@pytest.mark.parametrize("caller", CALLERS.keys() - {"the operator", "a stranger"})
async def test_opening(scene: Scene, stack: Stack, caller: str) -> None:
    """None: it opens. The codes are those of 2019: 1008 for a secret or a scope, 1011 for no such channel."""
    codes = {MAY: None, SCOPE: 1008, HIDDEN: 1011, WHO: 1008}
    sockets, key = Sockets(stack.edges[0].url), scene.callers[caller]
    assert key is not None
    for what, may in zip(OBJECTS, CALLERS[caller], strict=True):
        if what in KINDS:
            continue
        receiver = await sockets.open(key, await scene.object(what))
        if may == MAY:
            assert await receiver.connection.ping() is not None
            assert receiver.open_now
            await receiver.close()
        else:
            assert await receiver.closed() == codes[may], what
