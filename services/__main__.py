"""`python -m services NAME`: starts a service or `all`, or runs one of the operator's commands."""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable

import uvloop
from redis.asyncio import Redis

from services.all_in_one import service as all_in_one
from services.expiry_reaper import service as expiry_reaper
from services.gateway import command_line
from services.gateway import service as gateway
from services.serving import check_layout_and_time, has_our_layout, keeping_time
from services.socket_edge import service as socket_edge
from services.webhook_dispatcher import service as webhook_dispatcher
from shared.model.errors import StoreUnavailable, WrongLayout
from shared.redis.client import connect
from shared.redis.urls import is_cluster
from shared.runtime.embedded import DataDirInUse, DataDirUnusable, ValkeyFailed, embedded_url
from shared.runtime.exporters import start_metrics, start_traces, stop_telemetry
from shared.runtime.http.server import CannotListen
from shared.runtime.logs import configure_logs
from shared.runtime.process import raise_file_limit
from shared.runtime.settings import (
    Settings,
    SettingsError,
    load_settings,
    log_format_in,
    unknown_names,
)
from shared.runtime.settings_list import settings_table
from shared.store.commands import commands_to
from shared.version import build_line

logger = logging.getLogger(__name__)

# Each service, and the name of the setting of its port.
_SERVICES: dict[str, tuple[Callable[[Settings, Redis, asyncio.Event], Awaitable[None]], str]] = {
    "gateway": (gateway.run, "port"),
    "socket-edge": (socket_edge.run, "edge_port"),
    "webhook-dispatcher": (webhook_dispatcher.run, "dispatcher_port"),
    "expiry-reaper": (expiry_reaper.run, "reaper_port"),
}
_REFUSALS = (
    *(CannotListen, DataDirInUse, DataDirUnusable, SettingsError),
    *(StoreUnavailable, ValkeyFailed, WrongLayout),
)
_RUNS_JOBS = ("all", "webhook-dispatcher", "expiry-reaper")


class CannotStart(Exception):
    """The command does not fit the settings. The text is one line."""


def main() -> int:
    """Runs one command and returns the exit code. A refused start is one line on stderr."""
    arguments = _parser().parse_args()
    if arguments.command == "settings":
        print(settings_table())
        return 0
    configure_logs(log_format=log_format_in(), level="info")
    try:
        settings = load_settings()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run_command(arguments, settings))
    except (CannotStart, *_REFUSALS) as error:
        if log_format_in() == "json":
            logger.error("start.refused", extra={"facts": {"why": str(error)}})
        else:
            print(f"stopped: {error}", file=sys.stderr)
        return 2
    except Exception:
        logger.critical("process.failed", exc_info=True)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services", description="The notification gateway.")
    parser.add_argument("--version", action="version", version=build_line())
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("all", help="everything in one process on one origin, with an embedded Valkey")
    commands.add_parser("gateway", help="REST: accounts, publishing, subscriptions, channels")
    commands.add_parser("socket-edge", help="held connections: WebSockets and long polls")
    commands.add_parser("webhook-dispatcher", help="calls customers' URLs, with backoff")
    commands.add_parser("expiry-reaper", help="expires idle channels and old notifications")
    commands.add_parser("settings", help="list every setting with its default and meaning")
    command_line.add_commands(commands)
    return parser


async def _run_command(arguments: argparse.Namespace, settings: Settings) -> int:
    configure_logs(log_format=settings.log_format, level=settings.log_level)
    if arguments.command not in ("all", *_SERVICES):
        return await _run_operator_command(settings, arguments)
    _check_jobs(arguments.command, settings)
    for name in unknown_names():
        logger.warning("setting.unknown", extra={"facts": {"name": name}})
    raise_file_limit()
    start_metrics(service=arguments.command, replica=settings.replica)
    start_traces(service=arguments.command, replica=settings.replica, otlp_url=settings.otlp_url)
    stop = _stop_on_signals()
    try:
        if arguments.command == "all":
            await all_in_one.run(settings, stop)
        else:
            await _run_service(arguments.command, settings, stop)
    finally:
        stop_telemetry()
    return 0


def _check_jobs(name: str, settings: Settings) -> None:
    if name in _RUNS_JOBS and is_cluster(settings.redis_url) and settings.jobs_redis_url is None:
        raise CannotStart(
            "NOTIFY_REDIS_URL is a cluster, and NOTIFY_JOBS_REDIS_URL is not set: arq's keys span slots, "
            "so jobs need a Redis that is not a cluster (a small one, or one behind sentinels)"
        )


async def _run_service(name: str, settings: Settings, stop: asyncio.Event) -> None:
    if settings.redis_url is None:
        raise CannotStart("NOTIFY_REDIS_URL is not set; only `all` brings a Valkey of its own")
    if name == "gateway" and settings.admin_token is None:
        raise CannotStart("NOTIFY_ADMIN_TOKEN is not set; only `all` makes a token itself")
    async with connect(settings.redis_url) as redis:
        run, port = _SERVICES[name]
        commands = commands_to(redis)
        if await has_our_layout(settings, commands, port=getattr(settings, port), stop=stop):
            async with keeping_time(commands):
                await run(settings, redis, stop)


async def _run_operator_command(settings: Settings, arguments: argparse.Namespace) -> int:
    url = settings.redis_url or await asyncio.to_thread(embedded_url, settings.data_dir)
    if url is None:
        raise CannotStart(f"NOTIFY_REDIS_URL is not set, and no embedded Valkey runs in {settings.data_dir}")
    async with connect(url) as redis:
        await check_layout_and_time(commands_to(redis))
        return await command_line.run_command(arguments, redis)


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


if __name__ == "__main__":
    sys.exit(main())
