"""The commands that `python -m services all` prints when it listens: a tour to paste into two terminals."""

import os
import shlex
import sys
from pathlib import Path

from services.all_in_one.first_start import ADMIN_TOKEN_FILE, DEMO_SECRET_FILE
from shared.runtime.settings import Settings


def welcome(settings: Settings) -> str:
    """The tour: subscribe to orders, connect, publish an order, make an account.

    It reads secrets from files: what a process prints ends up in logs.
    """
    address = f"[{settings.host}]" if ":" in settings.host else settings.host
    origin = f"http://{address}:{settings.port}"
    secret = f"$(cat {shlex.quote(str(settings.data_dir / DEMO_SECRET_FILE))})"
    bearer = f'-H "Authorization: Bearer {secret}"'
    python = os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else "python3"
    file = shlex.quote(str(settings.data_dir / ADMIN_TOKEN_FILE))
    token = f"$(cat {file})" if settings.admin_token is None else "$NOTIFY_ADMIN_TOKEN"
    order = '{"topic": "orders.paid", "data": {"order": 4711, "total": "19.90"}}'
    client = (
        "import sys; from websockets.sync.client import connect; "
        f'[print(frame, flush=True) for frame in connect("ws{origin.removeprefix("http")}'
        '/v2/notification/websocket-connect", subprotocols=["wss", "pelion_" + sys.argv[1]])]'
    )
    return f"""
The notification gateway listens on {origin} (Ctrl-C stops it; its data is in {settings.data_dir}/).

Register a channel, and bind it to every order:

  curl -X PUT {origin}/v2/notification/websocket {bearer}
  curl -X PUT {origin}/v1/bindings {bearer} -d '["orders.#"]'

Connect, in another terminal (with this or any WebSocket client):

  {python} -c '{client}' "{secret}"

Publish:

  curl -X POST {origin}/v1/events {bearer} -d '{order}'

Make accounts and API keys of your own with the admin token:

  curl -X POST {origin}/v1/accounts -H "Authorization: Bearer {token}" \\
    -d '{{"name": "my account"}}'
"""
