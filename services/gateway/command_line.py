"""Accounts and API keys from the command line, straight in Redis: for an operator without a token at hand."""

import argparse
import json
import sys
from typing import Any

from redis.asyncio import Redis

from services.gateway.accounts import new_account, new_api_key
from shared.model.errors import Invalid
from shared.store.api_keys import ApiKeys
from shared.store.calls import Calls
from shared.store.nudges import Nudges
from shared.store.routes import Routing
from shared.wire.pelion.subscriptions import compiled


def add_commands(commands: Any) -> None:
    """Adds `accounts create`, `api-keys create` and `api-keys revoke` to argparse's subcommands."""
    accounts = commands.add_parser("accounts", help="make accounts").add_subparsers(
        dest="action", required=True
    )
    create = accounts.add_parser("create", help="make an account; prints it as JSON")
    create.add_argument("--name", required=True)
    create.add_argument("--parent", help="id of the account above it")
    keys = commands.add_parser("api-keys", help="make and revoke API keys").add_subparsers(
        dest="action", required=True
    )
    create = keys.add_parser("create", help="make an API key; prints it, with its secret, as JSON")
    create.add_argument("--account", required=True, help="id of the account")
    create.add_argument("--name", required=True)
    create.add_argument("--scopes", default="publish,receive", help="separated by commas")
    revoke = keys.add_parser("revoke", help="end an API key, with its channel and queue")
    revoke.add_argument("id")


async def carry_out(arguments: argparse.Namespace, redis: Redis) -> int:
    """Does what was asked; the exit code."""
    calls = Calls(redis)
    nudges = Nudges(calls)
    api_keys = ApiKeys(calls, Routing(calls, compiled), nudges)
    try:
        match arguments.command, arguments.action:
            case "accounts", "create":
                posted = {"name": arguments.name, "parent": arguments.parent}
                _print(await new_account(api_keys, posted))
            case "api-keys", "create":
                if await api_keys.account(arguments.account) is None:
                    raise Invalid("there is no such account", field="account")
                posted = {"name": arguments.name, "scopes": arguments.scopes.split(",")}
                _print(await new_api_key(api_keys, arguments.account, posted))
            case _:
                await _revoke(api_keys, arguments.id)
    except Invalid as fault:
        print(f"refused: {fault.message}", file=sys.stderr)
        return 1
    finally:
        await nudges.sent()
    return 0


async def _revoke(api_keys: ApiKeys, api_key_id: str) -> None:
    key = await api_keys.find(api_key_id)
    if key is None:
        raise Invalid("there is no such API key", field="id")
    await api_keys.revoke(key)


def _print(made: dict[str, Any]) -> None:
    print(json.dumps(made, indent=2))
