"""What the first start makes and later starts find in the data folder: an admin token and a demo API key."""

import os
import secrets
from pathlib import Path

from services.gateway.accounts import new_account, new_api_key
from shared.clock import now_ms
from shared.model.api_keys import Scope
from shared.runtime.settings import ADMIN_TOKEN_LENGTH, Settings
from shared.store.api_keys import ApiKeys
from shared.wire.accounts import NewAccount, NewApiKey

ADMIN_TOKEN_FILE = "admin-token"  # noqa: S105 - the name of a file
DEMO_SECRET_FILE = "demo-secret"  # noqa: S105 - likewise


def admin_token(settings: Settings) -> str:
    """The token from the settings, else the one in the data folder."""
    if settings.admin_token is not None:
        return settings.admin_token.get_secret_value()
    file = settings.data_dir / ADMIN_TOKEN_FILE
    # A crash may have left an empty file, and an empty token would let everyone in.
    if not file.exists() or len(file.read_text().strip()) < ADMIN_TOKEN_LENGTH:
        _write_private(file, secrets.token_urlsafe(32))
    return file.read_text().strip()


async def make_demo_key(api_keys: ApiKeys, data_dir: Path) -> None:
    """Makes the demo's account and API key when they are missing; the secret is in a file."""
    file = data_dir / DEMO_SECRET_FILE
    if file.exists() and await api_keys.authenticate(file.read_text().strip(), now_ms=now_ms()):
        return
    account = await new_account(api_keys, NewAccount("demo"))
    key = await new_api_key(api_keys, account.id, NewApiKey("demo", [Scope.PUBLISH, Scope.RECEIVE]))
    _write_private(file, key.secret)


def _write_private(path: Path, text: str) -> None:
    """Replaces the file as a whole; only its owner may read it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    with open(temporary, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
    temporary.replace(path)
