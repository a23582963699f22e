"""Each service works as a Redis user of its own, with exactly the rights in deploy/redis/users.acl."""

import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from shared.redis.slots import ANY_NODE, FIRST_ARGUMENT_IS_KEY
from shared.store import keyspace
from shared.store.scripts import load_scripts
from tests.conftest import Listen, Start
from tests.harness import rights
from tests.harness.all_in_one import all_in_one
from tests.harness.api import Api, ApiKey
from tests.harness.channels import AccountChannels
from tests.harness.events import reading, readings
from tests.harness.monitor import shape
from tests.harness.processes import CHECKOUT, environment, run_command
from tests.harness.rights import REPORTS, Restricted, Rights, User
from tests.harness.stack import RedisLike, Stack, running_stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Webhook, webhook
from tests.stories.test_cognism_push import join, test_a_push_reaches_only_its_session_unchanged
from tests.stories.test_in_order import test_events_of_a_batch_keep_their_order
from tests.stories.test_kazoo_sockets import connect, test_an_event_frame_has_routing_keys_and_normalized_data
from tests.stories.test_one_socket_per_channel import test_newest_socket_takes_over

__all__ = [
    "connect",
    "join",
    "test_a_push_reaches_only_its_session_unchanged",
    "test_an_event_frame_has_routing_keys_and_normalized_data",
    "test_events_of_a_batch_keep_their_order",
    "test_newest_socket_takes_over",
]

USERS = rights.users()
SERVICES = [user for name, user in USERS.items() if name != "notify-all"]
OF_SCRIPTS = {
    script.sha: {
        "memory|usage" if name == "MEMORY" else name.lower()
        for name in re.findall(r"redis\.p?call\('([A-Z]+)'", script.source)
    }
    for script in load_scripts().values()
}
# Besides the commands with keys.
OTHERS = {"eval", "evalsha", "info", "ping", "scan", "ssubscribe", "subscribe", "sunsubscribe", "time"}
# What no story uses. A command in a branch of a script that the service runs needs no line here.
UNUSED = {
    "+ping": "the server or the connection was silent for seconds",
    "+set": "a reaper was the first process on an empty Redis",
    "+sunsubscribe": "a topic had no readers on an edge for half a minute",
    "+unwatch": "two workers took the same job at once",
    "+hscan": "a dispatcher read a large routing table",
    "~{native-tokens}:changes": "a reaper ended the deletion of an account with token keys",
    "~{*}:session": "a dispatcher sent a session the outcome of a webhook",
    "~{*}:ended": "a dispatcher or a reaper ended a channel while receipts were tracked",
}
STORIES = [
    "tests/stories",
    "tests/faults/test_rights.py",
    *(
        f"tests/faults/test_{name}.py"
        for name in (
            *(
                "channels_killed",
                "expiry",
                "idempotency_killed",
                "killed_edge",
                "push_unanswered",
                "reaper",
                "refused_frames",
            ),
            *("resubscribe", "sessions", "valkey_killed", "webhooks"),
        )
    ),
]


@pytest.fixture(scope="module")
def redis_like() -> RedisLike:
    return Restricted


@pytest.fixture(scope="module")
def shared_stack() -> Iterator[Stack]:
    """Replaces the shared installation, also for the stories imported above."""
    with running_stack(
        gateways=2,
        edges=2,
        dispatchers=1,
        reapers=1,
        redis_like=Restricted,
        ALLOW_PRIVATE_CALLBACKS=1,
        HEARTBEAT_S=1,
        CHANNEL_IDLE_EXPIRY_S=2,
        RECONCILE_EVERY_S=1,
    ) as stack:
        yield stack


@pytest.fixture
def stack(stack: Stack) -> Iterator[Stack]:
    yield stack
    assert denied_on(stack) == []


def denied_on(stack: Stack) -> list[str]:
    redis = stack.redis
    assert isinstance(redis, rights.Restricted | rights.RestrictedCluster | rights.RestrictedGuarded)
    return redis.denied()


@pytest.fixture
async def hook() -> AsyncIterator[Webhook]:
    async with webhook() as running:
        yield running


async def assert_delivers(api: Api, key: ApiKey, listen: Listen, edge: str) -> None:
    receiver = await listen(key, edge)
    await api.publish(key, *readings(range(10), to=key.id))
    await receiver.received_numbers(range(10))


async def test_scripts_are_loaded_again(api: Api, stack: Stack, channel: ApiKey, listen: Listen) -> None:
    with stack.redis.client() as direct:
        direct.script_flush()
    await assert_delivers(api, channel, listen, stack.edges[0].url)


async def test_connections_are_opened_again(api: Api, stack: Stack, channel: ApiKey, listen: Listen) -> None:
    with stack.redis.client() as direct:
        for name in USERS:
            direct.execute_command("CLIENT", "KILL", "USER", name)

    async def is_back() -> bool:
        return (await api.post_events(channel, [reading(0, to=channel.id)])).status == 202

    await wait_until(is_back)
    receiver = await listen(channel, stack.edges[0].url)
    await wait_until(lambda: 0 in receiver.numbers)


async def test_a_reaper_finishes_the_deletion_of_an_account(api: Api, stack: Stack, hook: Webhook) -> None:
    account = await api.account()
    keys = [await api.api_key(account=account) for _ in range(3)]
    await api.register(keys[0])
    await api.register_webhook(keys[1], hook.url)
    await api.publish(keys[0], {**reading(1, to=keys[0].id), "receipt": True})
    put = await api.admin("PUT", f"/v1/streams?account={account}", json=[{"topics": ["#"]}])
    assert put.status == 204, put.text
    await api.publish(keys[0], {"topic": "orders.paid", "data": 1})
    with stack.redis.client() as direct:
        # As a gateway leaves it that is killed just after it has begun.
        direct.sadd(keyspace.DELETING, account)
        direct.hset(keyspace.account(account), "deleting", "1")

        await wait_until(lambda: not direct.smembers(keyspace.DELETING), within_s=60)
        assert not direct.exists(*(keyspace.api_key(key.id) for key in keys))
        assert direct.keys(f"{{{account}/*") == []


async def test_a_reaper_finds_names_that_are_not_right(api: Api, stack: Stack) -> None:
    channels = AccountChannels(api, await api.api_key(scopes=("channels",)))
    made = await channels.create(name="kitchen")
    names = keyspace.names_of_channels(channels.key.account)
    with stack.redis.client() as direct:
        [right] = direct.zrange(names, 0, -1)
        # As Redis leaves them that has lost a write, and a gateway that was killed in a renaming.
        direct.zrem(names, right)
        stale = right.replace(b"kitchen", b"former")
        direct.zadd(names, {stale: 0})

        await wait_until(lambda: direct.zrange(names, 0, -1) == [right], within_s=60)
    assert (await channels.get("kitchen"))["id"] == made["id"]


async def test_old_notifications_are_dropped(start: Start, http: aiohttp.ClientSession) -> None:
    stack = start(edges=0, reapers=1, NOTIFICATION_LIFETIME_S=1)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register(key)
    await api.publish(key, {**reading(1, to=key.id), "receipt": True})
    with stack.redis.client() as direct:
        await wait_until(lambda: not direct.xlen(keyspace.queue(key.id)), within_s=60)
    assert denied_on(stack) == []


async def test_an_idle_webhook_expires(api: Api, hook: Webhook, stack: Stack) -> None:
    key = await api.api_key()
    await api.register_webhook(key, hook.url)
    with stack.redis.client() as direct:
        await wait_until(lambda: not direct.exists(keyspace.channel(key.id)), within_s=60)
        assert not direct.smembers(keyspace.WEBHOOKS)


def test_an_operator_needs_no_more_rights_than_a_gateway(stack: Stack) -> None:
    settings = stack.redis.settings_for("gateway")

    def run(*arguments: str) -> Any:
        done = run_command(*arguments, settings=settings)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout else None

    account = run("accounts", "create", "--name", "shell")["id"]
    run("accounts", "quotas", account, "events_per_s=500")
    key = run("api-keys", "create", "--account", account, "--name", "shell")["id"]
    run("api-keys", "list", "--account", account)
    run("api-keys", "rotate", key)
    run("api-keys", "revoke", key)
    run("api-keys", "create", "--account", account, "--name", "left over")
    run("accounts", "delete", account, "--cascade")


async def test_all_in_one_process_is_one_user(
    stack: Stack, http: aiohttp.ClientSession, listen: Listen
) -> None:
    with all_in_one(**stack.redis.settings_for("all")) as service:
        service.start()
        service.wait_ready()
        api = Api(http, service.url, service.admin_token)
        key = await api.api_key()
        await api.register(key)
        await assert_delivers(api, key, listen, service.url)


@pytest.mark.parametrize("redis_like", [rights.RestrictedCluster, rights.RestrictedGuarded])
async def test_a_cluster_and_sentinels_need_a_little_more(
    start: Start, http: aiohttp.ClientSession, listen: Listen, hook: Webhook
) -> None:
    stack = start(dispatchers=1, reapers=1, ALLOW_PRIVATE_CALLBACKS=1, HEARTBEAT_S=1)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    keys = [await api.api_key() for _ in range(4)]
    for key in keys[:3]:
        await api.register(key)
        await assert_delivers(api, key, listen, stack.edges[0].url)
    await api.register_webhook(keys[3], hook.url)
    await api.publish(keys[3], *readings(range(3), to=keys[3].id))
    await wait_until(lambda: hook.calls)
    assert denied_on(stack) == []


async def test_a_right_that_is_missing_is_noticed(start: Start, http: aiohttp.ClientSession) -> None:
    stack = start(edges=0)
    with stack.valkey.client() as direct:
        direct.execute_command("ACL", "SETUSER", "notify-gateway", "-xadd")
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register(key)

    assert (await api.post_events(key, [reading(1, to=key.id)])).status == 503

    assert denied_on(stack) == ["notify-gateway: command xadd (lua)"]
    with stack.valkey.client() as direct:
        direct.acl_log_reset()


def test_the_user_of_all_services_has_the_rights_of_each() -> None:
    def all_of(user: User) -> tuple[set[str], ...]:
        both = [user.state, user.jobs or Rights((), (), ())]
        return tuple(
            {rule for each in both for rule in getattr(each, kind)}
            for kind in ("commands", "keys", "channels")
        )

    ours = all_of(USERS["notify-all"])
    for number, wanted in enumerate(zip(*map(all_of, SERVICES), strict=True)):
        full = {rule for rule in set().union(*wanted) if not rule.startswith("%R~")}
        read = {rule for rule in set().union(*wanted) if rule.startswith("%R~")}
        assert ours[number] == full | {rule for rule in read if rule[2:] not in full}


def test_every_command_of_ours_is_a_right_and_no_other() -> None:
    """`slots.py` and the scripts have every command; the jobs' are arq's."""
    ours = {name.lower() for name in FIRST_ARGUMENT_IS_KEY | ANY_NODE} | OTHERS
    ours |= set().union(*OF_SCRIPTS.values())
    assert set(USERS["notify-all"].state.commands) == ours


@pytest.mark.parametrize("user", USERS.values(), ids=USERS)
def test_the_operators_table_has_each_user(user: User) -> None:
    text = (CHECKOUT / "docs" / "operations.md").read_text()
    [row] = re.findall(rf"^\| `{user.name}` \|(.*)\|$", text, flags=re.M)
    assert row.strip() == row_of(user)


def row_of(user: User) -> str:
    """What the table says behind the user's name."""
    cells = [_cell(user.state)]
    cells.append(_cell(user.jobs) if user.jobs else "none")
    return " | ".join(cells)


def _cell(some: Rights) -> str:
    rules = (*some.keys, *some.channels, *(f"+{command}" for command in some.commands))
    # A bar would end the cell.
    return " ".join(f"`{rule}`" for rule in rules).replace("|", r"\|")


def test_the_operators_page_names_what_a_cluster_and_sentinels_need() -> None:
    text = (CHECKOUT / "docs" / "operations.md").read_text()
    for right in (*rights.ON_A_CLUSTER, *rights.ON_SENTINEL, *rights.OF_SENTINELS):
        assert f"`+{right}`".replace("|", r"\|") in text


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_all_stories_use_every_right_and_need_no_other() -> None:
    with tempfile.TemporaryDirectory(prefix="notify-") as reports:
        options = ["--redis=rights", "-n4", "-q", "-p", "no:cacheprovider", "-m", "not long"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *STORIES],
            cwd=CHECKOUT,
            env=environment() | {REPORTS: reports},
            capture_output=True,
            text=True,
            check=False,
        )
        found = [json.loads(path.read_text()) for path in Path(reports).iterdir()]
    assert found
    # First: what is denied makes stories fail.
    assert [denied for report in found for denied in report["denied"]] == []
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert unused(found) == {}


def unused(reports: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The rights of each user that nothing used and nothing explains."""
    used: dict[str, set[tuple[str, str]]] = defaultdict(set)
    scripts: dict[str, set[str]] = defaultdict(set)
    for report in reports:
        for name, commands in report["used"].items():
            used[name] |= {(command, key) for command, key in commands}
        for name, called in report["scripts"].items():
            scripts[name] |= set(called)
    left = {}
    for user in SERVICES:
        in_scripts = set().union(*(OF_SCRIPTS.get(sha, set()) for sha in scripts[user.name]))
        commands = {command for command, _ in used[user.name]} | in_scripts
        names = {name for _, name in used[user.name]}
        both = [user.state, *([user.jobs] if user.jobs else [])]
        rules = [f"+{command}" for each in both for command in each.commands if command not in commands]
        rules += [rule for each in both for rule in (*each.keys, *each.channels) if not _is_met(rule, names)]
        rules = [rule for rule in rules if rule not in UNUSED]
        if rules:
            left[user.name] = rules
    return left


def _is_met(rule: str, names: set[str]) -> bool:
    pattern = shape(rule.partition("~")[2] or rule[1:])
    return any(fnmatchcase(name.replace("{every}", "{*}"), pattern) for name in names)


def test_an_unused_right_is_noticed() -> None:
    everything = {
        user.name: [
            (command, rule.lstrip("%R~&"))
            for each in (user.state, user.jobs)
            if each
            for command in each.commands
            for rule in (*each.keys, *each.channels)
        ]
        for user in SERVICES
    }
    report = {"used": everything, "scripts": {}}
    assert unused([report]) == {}

    everything["notify-socket-edge"] = [
        (command, name)
        for command, name in everything["notify-socket-edge"]
        if command != "lpop" and name != "{*}:pushes"
    ]
    assert unused([report]) == {"notify-socket-edge": ["+lpop", "~{*}:pushes"]}
