"""Programs and commands of docs/webhooks.md, docs/streams.md and docs/native.md, as a reader copies them."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from tests.harness.processes import CHECKOUT, Process, free_port
from tests.harness.programs import program
from tests.harness.waiting import wait_until
from tests.stock.receivers import built_go

PAGE = (CHECKOUT / "docs" / "webhooks.md").read_text()
STREAMS_PAGE = (CHECKOUT / "docs" / "streams.md").read_text()
NATIVE_PAGE = (CHECKOUT / "docs" / "native.md").read_text()
_FILES = {"python": "receiver.py", "js": "receiver.mjs", "go": "receiver.go"}
LANGUAGES = list(_FILES)


def blocks(language: str, page: str = PAGE) -> list[str]:
    """The page's blocks of this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


class DocumentedReceiver:
    """A receiver of the page on a port of its own. It may be started again, with other secrets."""

    def __init__(self, language: str, folder: Path) -> None:
        self._source = folder / _FILES[language]
        [block] = blocks(language)
        assert _FILES[language] in block.splitlines()[0], "the block begins with the name of its file"
        self._source.write_text(block)
        self._port = free_port()
        self._process = Process(
            f"documented-{language}", self._command(language), folder=folder, env=os.environ
        )

    def _command(self, language: str) -> list[str]:
        match language:
            case "go":
                return [str(built_go([self._source]))]
            case "js":
                return [program("node"), str(self._source)]
            case _:
                return [sys.executable, str(self._source)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/hook"

    async def start(self, *secrets: str) -> None:
        """Ends it if it runs, and starts it with these secrets."""
        self._process.close()
        self._process.env |= {"WEBHOOK_SECRETS": " ".join(secrets), "PORT": str(self._port)}
        self._process.start()
        await wait_until(self._listens, what=lambda: self._process.tail)

    async def _listens(self) -> bool:
        assert self._process.alive, self._process.tail
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        writer.close()
        return True

    @property
    def handled(self) -> list[tuple[str, str, Any]]:
        """Type, id and data of all events that it has handled so far, over all of its starts."""
        lines = self._process.stdout.splitlines(keepends=True)
        events = [line.split(" ", 2) for line in lines if line.endswith("\n")]
        return [(topic, event_id, json.loads(data)) for topic, event_id, data in events]

    @property
    def ids(self) -> list[str]:
        """The ids of the orders among them."""
        return [event_id for topic, event_id, _ in self.handled if topic.startswith("orders.")]

    def close(self) -> None:
        self._process.close()
