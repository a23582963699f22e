"""What a token has opened ends with its key, its sign-out or its ticket, however the edge learns of it."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import pytest

from services.socket_edge import token_watcher
from services.socket_edge.held import HeldConnection
from services.socket_edge.token_watcher import TokenCredential, TokenWatcher
from shared.clock import now_ms
from shared.model.api_keys import Account, new_id
from shared.model.channels import CloseReason
from shared.model.errors import StoreUnavailable
from shared.model.token_keys import Algorithm
from shared.runtime.loops import in_background
from shared.store.tickets import Tickets
from shared.store.token_keys import Standing, TokenKeys
from shared.store.token_names import subject_hash
from tests.harness.waiting import wait_until
from tests.store.stores import Stores


class Connection:
    """What is asked of a connection."""

    def __init__(self, kid: str, account_id: str, subject: str, changes: int = 0) -> None:
        self.token: TokenCredential | None = TokenCredential(
            account_id=account_id,
            kid=kid,
            subject_hash=subject_hash(subject),
            issued_ms=now_ms() - 60_000,
            until_ms=now_ms() + 60_000,
            changes=changes,
        )
        self.is_held = True
        self.reason: CloseReason | None = None

    async def close(self, reason: CloseReason) -> None:
        self.reason = reason


class Keys(TokenKeys):
    """Counts which accounts were looked at; fails when told to."""

    def __init__(self, redis: Any) -> None:
        super().__init__(redis)
        self.asked: list[tuple[str, int]] = []
        self.is_away = False
        self.meanwhile: Callable[[], None] = lambda: None

    async def standings(
        self, account_id: str, tokens: Sequence[tuple[str, str]], *, now_ms: int
    ) -> list[Standing]:
        self.asked.append((account_id, len(tokens)))
        if self.is_away:
            raise StoreUnavailable(why="test")
        found = await super().standings(account_id, tokens, now_ms=now_ms)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return found


@pytest.fixture
def keys(stores: Stores) -> Keys:
    return Keys(stores.calls)


@pytest.fixture
def held() -> list[Connection]:
    return []


@pytest.fixture
async def watcher(
    keys: Keys, stores: Stores, held: list[Connection], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[TokenWatcher]:
    """It runs; what it has read at first is behind it."""
    monkeypatch.setattr(token_watcher, "_RETRY_S", 0.01)
    monkeypatch.setattr(token_watcher, "_READ_S", 0.01)
    all_held = cast(Callable[[], list[HeldConnection]], lambda: list(held))
    watcher = TokenWatcher(keys, Tickets(stores.calls), all_held)
    async with in_background(watcher.run, watcher.watch):
        yield watcher


async def kid_of(keys: TokenKeys, stores: Stores, account_id: str) -> str:
    await stores.api_keys.create_account(Account(id=account_id, name="a"))
    return (await keys.add(account_id, Algorithm.HS256, "s" * 32, now_ms=now_ms())).kid


async def opened(keys: Keys, stores: Stores, held: list[Connection], *subjects: str) -> list[Connection]:
    """Connections by one key of a new account."""
    account_id = new_id()
    kid = await kid_of(keys, stores, account_id)
    mine = [Connection(kid, account_id, subject) for subject in subjects]
    held += mine
    return mine


def as_held(connections: Sequence[Connection]) -> list[HeldConnection]:
    return cast(list[HeldConnection], list(connections))


async def test_only_the_account_that_changed_is_looked_at(
    keys: Keys, stores: Stores, held: list[Connection], watcher: TokenWatcher
) -> None:
    mine = await opened(keys, stores, held, *[f"user-{n}" for n in range(250)])
    theirs = await opened(keys, stores, held, "user-0")
    assert mine[0].token is not None

    await keys.cut_off(mine[0].token.account_id, "user-0")
    await wait_until(lambda: mine[0].reason is CloseReason.SIGNED_OUT)
    await wait_until(lambda: sum(count for _, count in keys.asked) == 250)

    assert {account for account, _ in keys.asked} == {mine[0].token.account_id}
    assert max(count for _, count in keys.asked) == 100
    assert [each.reason for each in (*mine[1:], *theirs)] == [None] * 250


async def test_a_deleted_key_ends_its_connections(
    keys: Keys, stores: Stores, held: list[Connection], watcher: TokenWatcher
) -> None:
    one, two = await opened(keys, stores, held, "user-1", "user-2")
    two.is_held = False
    assert one.token is not None
    await keys.drop(one.token.kid)
    await wait_until(lambda: one.reason is CloseReason.TOKEN_KEY_DELETED)
    assert two.reason is None, "it has ended"


async def test_very_many_changes_have_all_connections_looked_at(
    keys: Keys,
    stores: Stores,
    held: list[Connection],
    watcher: TokenWatcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [one] = await opened(keys, stores, held, "user-1")
    monkeypatch.setattr("shared.store.token_keys._MOST_NOTES", 1)
    account = new_id()
    await kid_of(keys, stores, account)
    await keys.cut_off(account, "somebody")
    assert one.token is not None
    await wait_until(lambda: (one.token and one.token.account_id, 1) in keys.asked)
    assert one.reason is None


async def test_a_lost_note_is_made_up_for_by_the_sweep(
    keys: Keys, stores: Stores, held: list[Connection], watcher: TokenWatcher
) -> None:
    [one] = await opened(keys, stores, held, "user-1")
    assert one.token is not None
    stores.direct.delete(f"{{{one.token.account_id}}}:token-keys")

    watcher.check(as_held(held))

    await wait_until(lambda: one.reason is CloseReason.TOKEN_KEY_DELETED)


async def test_while_redis_is_away_nobody_ends_and_nobody_is_forgotten(
    keys: Keys, stores: Stores, held: list[Connection], watcher: TokenWatcher
) -> None:
    [one] = await opened(keys, stores, held, "user-1")
    assert one.token is not None
    keys.is_away = True
    await keys.cut_off(one.token.account_id, "user-1")
    await wait_until(lambda: len(keys.asked) >= 3)
    assert one.reason is None
    keys.is_away = False
    await wait_until(lambda: one.reason is CloseReason.SIGNED_OUT)


async def test_a_change_while_redis_is_asked_is_not_lost(
    keys: Keys, stores: Stores, held: list[Connection], watcher: TokenWatcher
) -> None:
    """The answer is from before it."""
    [one] = await opened(keys, stores, held, "user-1")
    assert one.token is not None
    name = f"{{{one.token.account_id}}}:token-keys"

    def drop() -> None:
        stores.direct.delete(name)
        watcher.check(as_held([one]))

    keys.meanwhile = drop
    watcher.check(as_held([one]))

    await wait_until(lambda: one.reason is CloseReason.TOKEN_KEY_DELETED)


async def test_a_new_connection_is_looked_at_if_something_changed_since_its_token_was_read(
    keys: Keys, stores: Stores, held: list[Connection], watcher: TokenWatcher
) -> None:
    account_id = new_id()
    kid = await kid_of(keys, stores, account_id)
    before = watcher.changes
    late = Connection(kid, account_id, "user-1", changes=before)
    await keys.drop(kid)
    await wait_until(lambda: watcher.changes > before)
    watcher.check_new(cast(HeldConnection, late))
    await wait_until(lambda: late.reason is CloseReason.TOKEN_KEY_DELETED)

    asked = len(keys.asked)
    watcher.check_new(cast(HeldConnection, Connection(kid, account_id, "a", changes=watcher.changes)))
    assert len(keys.asked) == asked


async def test_one_that_is_refreshed_while_its_token_is_looked_at_stays(
    keys: Keys, stores: Stores, held: list[Connection], watcher: TokenWatcher
) -> None:
    refreshed, stays = await opened(keys, stores, held, "user-1", "user-1")
    assert refreshed.token is not None
    account_id, old = refreshed.token.account_id, refreshed.token.kid
    other = await keys.add(account_id, Algorithm.HS256, "t" * 32, now_ms=now_ms())

    def refresh() -> None:
        refreshed.token = Connection(other.kid, account_id, "user-1").token

    keys.meanwhile = refresh
    await keys.drop(old)
    watcher.check(as_held([refreshed, stays]))
    await wait_until(lambda: stays.reason)
    assert stays.reason is CloseReason.TOKEN_KEY_DELETED
    assert refreshed.reason is None
