"""Accounts, quotas and API keys from the command line, directly in Redis: needs no gateway and no token."""

import argparse
import contextlib
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from services.gateway.accounts import PAGE, new_account, new_api_key, new_secret_of
from shared.clock import now_ms
from shared.model.api_keys import ApiKey, is_id
from shared.model.errors import GatewayError, Invalid, NoSuchAccount, SecretsInUse, StoreUnavailable
from shared.store.account_deletion import AccountDeletion
from shared.store.api_keys import ApiKeys
from shared.store.channels import Channels
from shared.store.commands import commands_to
from shared.store.quotas import AccountQuotas
from shared.store.routing import Routing
from shared.store.sessions import Sessions
from shared.store.streams import Streams
from shared.store.token_keys import TokenKeys
from shared.store.wakeups import Wakeups
from shared.wire.accounts import AccountBody, NewAccount, NewApiKey, NewSecret, account_body, api_key_body
from shared.wire.models import convert
from shared.wire.pelion.subscriptions import compiled
from shared.wire.quotas import AccountChanges, changes_in
from shared.wire.sessions import encode_patterns
from shared.wire.times import moment_text

_ACTIONS = {"dest": "action", "required": True}
_OF_KEYS = "key_"


def add_commands(commands: Any) -> None:
    """Adds `accounts create|delete|quotas` and `api-keys create|list|rotate|revoke` to argparse."""
    accounts = commands.add_parser("accounts", help="create, change and delete accounts")
    accounts = accounts.add_subparsers(**_ACTIONS)
    create = accounts.add_parser("create", help="create an account; prints it as JSON")
    create.add_argument("--name", required=True)
    create.add_argument("--parent", help="id of its parent account")
    create.add_argument("--master", action="store_true", help="its sockets may ask for all accounts' events")
    delete = accounts.add_parser("delete", help="delete an account with everything in it")
    delete.add_argument("id")
    delete.add_argument("--cascade", action="store_true", help="also with API keys")
    listing = accounts.add_parser("list", help="list accounts by their names as JSON")
    listing.add_argument("--name-prefix", default="", help="only accounts whose names begin so")
    quotas = accounts.add_parser("quotas", help="change an account's own quotas; prints them as JSON")
    quotas.add_argument("id")
    quotas.add_argument(
        "changes",
        nargs="*",
        metavar="NAME=VALUE",
        help="as events_per_s=500 or key_events_per_s=50; without a value: as the installation",
    )
    keys = commands.add_parser("api-keys", help="create, list, rotate and revoke API keys")
    keys = keys.add_subparsers(**_ACTIONS)
    create = keys.add_parser("create", help="create an API key; prints it, with its secret, as JSON")
    create.add_argument("--account", required=True, help="id of the account")
    create.add_argument("--name", required=True)
    create.add_argument("--scopes", default="publish,receive", help="comma-separated (default: %(default)s)")
    create.add_argument("--expires-at", help="when it expires, as 2027-01-31T12:00:00Z (default: never)")
    listing = keys.add_parser("list", help="list an account's API keys as JSON, without secrets")
    listing.add_argument("--account", required=True, help="id of the account")
    rotate = keys.add_parser("rotate", help="give an API key a new secret; prints it as JSON")
    rotate.add_argument("id")
    rotate.add_argument(
        "--old-valid-until",
        help="until when the old secret stays valid: a time, or `now` (default: 24 hours from now)",
    )
    revoke = keys.add_parser("revoke", help="revoke an API key; deletes its channel and queue")
    revoke.add_argument("id")


async def run_command(arguments: argparse.Namespace, redis: Redis) -> int:
    """Runs the command. Returns the exit code."""
    calls = commands_to(redis)
    wakeups, routing = Wakeups(calls), Routing(calls, compiled)
    api_keys = ApiKeys(calls, routing, wakeups)
    deletion = AccountDeletion(
        calls,
        api_keys=api_keys,
        channels=Channels(calls, routing, wakeups),
        sessions=Sessions(calls, routing, wakeups, encode=encode_patterns),
        streams=Streams(calls, routing),
        token_keys=TokenKeys(calls),
    )
    try:
        match arguments.command, arguments.action:
            case "accounts", "create":
                account = {"name": arguments.name, "parent": arguments.parent, "master": arguments.master}
                _print(await new_account(api_keys, convert(account, NewAccount)))
            case "accounts", "delete":
                await _delete(deletion, arguments.id, cascade=arguments.cascade)
            case "accounts", "list":
                _print(await _accounts(api_keys, arguments.name_prefix))
            case "accounts", "quotas":
                await _check_account(api_keys, arguments.id)
                _print(await _change_quotas(AccountQuotas(calls), arguments.id, arguments.changes))
            case "api-keys", "create":
                await _check_account(api_keys, arguments.account)
                wanted = {"name": arguments.name, "scopes": arguments.scopes.split(",")}
                wanted |= {"expires_at": arguments.expires_at}
                _print(await new_api_key(api_keys, arguments.account, convert(wanted, NewApiKey)))
            case "api-keys", "list":
                await _check_account(api_keys, arguments.account)
                keys = await _all(api_keys, arguments.account)
                _print([api_key_body(key, now_ms=now_ms()) for key in keys])
            case "api-keys", "rotate":
                key = await _key(api_keys, arguments.id)
                _print(await new_secret_of(api_keys, key, NewSecret(arguments.old_valid_until)))
            case _:
                await api_keys.revoke(await _key(api_keys, arguments.id))
    except StoreUnavailable:
        raise
    except GatewayError as error:
        print(f"refused: {_message(error)}", file=sys.stderr)
        return 1
    finally:
        await wakeups.flush()
    return 0


async def _accounts(api_keys: ApiKeys, prefix: str) -> list[AccountBody]:
    found: list[AccountBody] = []
    after: str | None = ""
    while after is not None:
        accounts, after = await api_keys.accounts(prefix, after=after, count=PAGE)
        found += map(account_body, accounts)
    return found


async def _delete(deletion: AccountDeletion, account_id: str, *, cascade: bool) -> None:
    """Raises NoSuchAccount, HasChildren, HasApiKeys."""
    if not is_id(account_id):
        raise NoSuchAccount
    await deletion.begin(account_id, cascade=cascade)
    await deletion.finish(account_id)


async def _change_quotas(
    quotas: AccountQuotas, account_id: str, changes: Sequence[str]
) -> dict[str, Mapping[str, float]]:
    """Returns the quotas in which the account differs from the installation. Raises Invalid."""
    posted: dict[str, dict[str, float | None]] = {"quotas": {}, "key_quotas": {}}
    for change in changes:
        name, _, value = change.partition("=")
        group = "key_quotas" if name.startswith(_OF_KEYS) else "quotas"
        posted[group][name.removeprefix(_OF_KEYS)] = _number(value, name) if value else None
    checked = convert(posted, AccountChanges)
    await quotas.change(
        account_id, quotas=changes_in(checked.quotas), key_quotas=changes_in(checked.key_quotas)
    )
    own, of_keys = await quotas.overrides(account_id)
    return {"quotas": own, "key_quotas": of_keys}


def _number(text: str, name: str) -> float:
    with contextlib.suppress(ValueError):
        number = float(text)
        if math.isfinite(number):
            return int(number) if number.is_integer() else number
    raise Invalid("must be a number", field=name)


async def _check_account(api_keys: ApiKeys, account_id: str) -> None:
    if not is_id(account_id) or await api_keys.account(account_id) is None:
        raise Invalid("there is no such account", field="account")


async def _key(api_keys: ApiKeys, api_key_id: str) -> ApiKey:
    key = await api_keys.find(api_key_id) if is_id(api_key_id) else None
    if key is None:
        raise Invalid("there is no such API key", field="id")
    return key


async def _all(api_keys: ApiKeys, account_id: str) -> list[ApiKey]:
    all_keys: list[ApiKey] = []
    after: str | None = ""
    while after is not None:
        keys, after = await api_keys.of_account(account_id, after=after, count=PAGE)
        all_keys += keys
    return all_keys


def _message(error: GatewayError) -> str:
    if isinstance(error, SecretsInUse):
        return f"{error}, the older until {moment_text(error.until_ms)}"
    return str(error)


def _print(body: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(body), indent=2).decode())
