"""Backups of a Valkey that runs, made and restored by the very commands in docs/operations.md."""

import asyncio
import os
import re
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.harness.processes import CHECKOUT
from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until

Backup = Callable[[Valkey, Path], Awaitable[None]]

# Stands in for valkey-cli, which no package for pip has.
_CLI = """
import os, sys, redis
try:
    print(redis.Redis.from_url(os.environ["SERVER"]).execute_command(*sys.argv[1:]))
except redis.ConnectionError:
    # SHUTDOWN has no reply.
    pass
"""


def documented(command: str) -> str:
    """The commands of the section "Backup and restore" among which is this one."""
    text = (CHECKOUT / "docs" / "operations.md").read_text()
    section = text.partition("\n## Backup and restore\n")[2].partition("\n## ")[0]
    block: str
    [block] = [each for each in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) if command in each]
    return block


async def run_documented(command: str, server: Valkey) -> None:
    """Runs them as in the container of this server. Raises AssertionError when one fails."""
    tools = server.folder / f"{server.name}-tools"
    tools.mkdir(exist_ok=True)
    cli = tools / "valkey-cli"
    cli.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(_CLI)} "$@"\n')
    cli.chmod(0o700)
    script = "set -e\n" + documented(command).replace("/data", str(server.data))
    env = {"PATH": f"{tools}:{os.environ['PATH']}", "SERVER": server.url}
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", script, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(shell.communicate(), 60)
    assert shell.returncode == 0, said.decode()


async def save(server: Valkey, to: Path) -> None:
    """A snapshot of the server, copied to this file."""
    await run_documented("valkey-cli BGSAVE", server)
    shutil.copy(server.data / "dump.rdb", to)


async def save_by_replica(server: Valkey, to: Path) -> None:
    """The snapshot of a replica that has everything."""
    replica = Valkey(to.parent, name="replica", tcp=True, more={"replicaof": f"127.0.0.1 {server.port}"})
    try:
        with server.client() as direct:
            direct.config_set("repl-diskless-sync-delay", "0")
        replica.start()
        await wait_until(lambda: replica.answers, within_s=60)
        await wait_until(lambda: _follows(replica), within_s=60, what="a replica")
        written = server.written
        await wait_until(lambda: server.is_replicated(written), within_s=60)
        await save(replica, to)
    finally:
        replica.close()


def _follows(replica: Valkey) -> bool:
    with replica.client() as direct:
        return bool(direct.info("replication")["master_link_status"] == "up")


async def restore(server: Valkey, snapshot: Path) -> None:
    """Replaces the data of a running server by the snapshot, and starts it again."""
    shutil.copy(snapshot, server.data / "notify.rdb")
    await run_documented("valkey-cli SHUTDOWN", server)
    await wait_until(lambda: server.ended, within_s=30)
    server.start()
    await wait_until(lambda: server.answers, within_s=60)
