"""Who may see and change which channels (docs/protocols/channels.md).

An API key with the scope `channels` or `admin` has all channels of its account, one with `receive` its own,
the operator those of every account. A caller cannot learn whether another account has a channel.
"""

from dataclasses import dataclass

from starlette.requests import Request

from services.gateway.context import context_of
from services.gateway.operations import Access
from services.gateway.paths import in_path
from shared.authentication import require_scope
from shared.model.account_channels import AccountChannel, ChannelRecord, id_shown, name_error
from shared.model.api_keys import ApiKey, Scope, is_id
from shared.model.errors import Invalid, MissingScope
from shared.runtime.http.responses import Problem


@dataclass(frozen=True, slots=True)
class ChannelCaller:
    """Who asks; without an API key it is the operator."""

    key: ApiKey | None

    @property
    def id(self) -> str:
        """As the audit log names it."""
        return "" if self.key is None else self.key.id

    @property
    def has_all(self) -> bool:
        """Whether it has every channel of the account."""
        return self.key is None or not self.key.scopes.isdisjoint((Scope.CHANNELS, Scope.ADMIN))


@dataclass(frozen=True, slots=True)
class OneChannel:
    """The channel in the path. `by_api_key`: the path has the id of its API key, and asks for that view."""

    caller: ChannelCaller
    record: ChannelRecord
    by_api_key: bool

    @property
    def id(self) -> str:
        return self.record.id


async def _caller(request: Request) -> ChannelCaller:
    return ChannelCaller(await context_of(request).authenticator.caller(request))


async def _manager(request: Request) -> ChannelCaller:
    """Raises MissingScope unless the caller has all channels of an account."""
    caller = await _caller(request)
    if not caller.has_all:
        raise MissingScope(Scope.CHANNELS)
    return caller


async def account_for(request: Request, caller: ChannelCaller) -> str:
    """The account that the request is about: the caller's own, or for the operator `?account=`.

    Raises Problem(404), Invalid.
    """
    given = _account_given(request)
    own = None if caller.key is None else caller.key.account_id
    account = given or own
    if account is None:
        raise Invalid("is missing: the operator names the account", field="account")
    if own is not None and account != own:
        raise Problem(404, "there is no such account")
    if await context_of(request).stores.api_keys.account(account) is None:
        raise Problem(404, "there is no such account")
    return account


def _account_given(request: Request) -> str | None:
    """The account in the query. Raises Invalid."""
    given = request.query_params.get("account")
    if given is not None and not is_id(given):
        raise Invalid("must be the id of an account", field="account")
    return given


async def _named(request: Request) -> OneChannel:
    """The channel in the path, by its id or its name. Raises Problem(404), MissingScope, Invalid."""
    text = in_path(request, "channel")
    caller = await _caller(request)
    channels = context_of(request).stores.account_channels
    channel, named_in, account = id_shown(text), None, _account_given(request)
    if caller.key is not None and not caller.has_all:
        if channel != caller.key.id:
            raise MissingScope(Scope.CHANNELS)
        require_scope(caller.key.scopes, Scope.RECEIVE)
    if channel is None and name_error(text) is None:
        named_in = await account_for(request, caller)
        channel = await channels.names.find(named_in, text)
    record = None if channel is None else await channels.record(channel)
    if record is None or not _is_seen(record, caller) or (named_in is not None and record.name != text):
        raise no_such_channel()
    if account not in (None, record.account_id):
        raise no_such_channel()
    return OneChannel(caller, record, by_api_key=False)


def _is_seen(record: ChannelRecord, caller: ChannelCaller) -> bool:
    return caller.key is None or record.account_id == caller.key.account_id


async def _one(request: Request) -> OneChannel:
    """The same, also by the id of an API key: for that key, an admin of its account, or the operator."""
    text = in_path(request, "channel")
    if not is_id(text):
        return await _named(request)
    caller, key = await context_of(request).authenticator.receiver(request, text)
    record = ChannelRecord(key.id, key.account_id, is_native=False)
    if _account_given(request) not in (None, key.account_id):
        raise no_such_channel()
    return OneChannel(ChannelCaller(caller), record, by_api_key=True)


async def present(request: Request, one: OneChannel) -> AccountChannel:
    """The channel as it is now. Raises Problem(404) without one: an API key may have none."""
    channel = await context_of(request).stores.account_channels.read(one.id)
    if channel is None:
        raise no_such_channel()
    return channel


def no_such_channel() -> Problem:
    return Problem(404, "there is no such channel")


_BOTH = ("adminToken", "apiKey")
_ERRORS = (401, 403, 404, 429, 503)
MANAGER = Access(_manager, _BOTH, _ERRORS)
NAMED_CHANNEL = Access(_named, _BOTH, _ERRORS)
ONE_CHANNEL = Access(_one, _BOTH, _ERRORS)
