"""The README's first command: everything on one origin, and printed lines that work when pasted."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import Listen
from tests.harness.all_in_one import AllInOne, all_in_one
from tests.harness.api import Api
from tests.harness.events import readings
from tests.harness.native import native_socket
from tests.harness.processes import CHECKOUT, free_port, run_command
from tests.harness.programs import program
from tests.harness.raw import exchange


@pytest.fixture(scope="module")
def service() -> Iterator[AllInOne]:
    with all_in_one() as process:
        process.start()
        process.wait_ready()
        yield process


@pytest.fixture
def api(service: AllInOne, http: aiohttp.ClientSession) -> Api:
    return Api(http, service.url, service.admin_token)


async def test_all_services_are_on_one_origin(service: AllInOne, api: Api, listen: Listen) -> None:
    key = await api.api_key()
    await api.register(key)
    await api.publish(key, *readings(range(100), to=key.id))

    receiver = await listen(key, service.url)

    await receiver.received_numbers(range(100))
    assert await api.status(key) == "connected"
    for path, status in (("/livez", 200), ("/readyz", 200), ("/metrics", 200), ("/v3", 404), ("/v1/x", 404)):
        assert (await api.call("GET", path)).status == status
    plain = "GET /v2/notification/websocket-connect HTTP/1.1\nHost: localhost\n\n"
    assert (await exchange(service.url, plain))[0] == 426


async def test_frames_and_requests_publish_alike(service: AllInOne, api: Api, listen: Listen) -> None:
    key = await api.api_key()
    await api.register(key)
    events = readings(range(3, 5), to=key.id)
    async with native_socket(service.url, bearer=key.secret) as socket:
        await api.publish(key, *readings(range(3), to=key.id))
        said = await socket.ask(publish={"events": events, "idempotency_key": "twice"})
        headers = {"Idempotency-Key": "twice", "Content-Type": "application/json"}
        again = await api.call("POST", "/v1/events", key=key, data=json.dumps(events), headers=headers)
        assert (again.json["events"], again.headers["Idempotent-Replayed"]) == (said, "true")

    receiver = await listen(key, service.url)
    await receiver.received_numbers(range(5))


def test_listens_on_one_port_only(service: AllInOne) -> None:
    assert service.ports == {service.port}


def test_a_second_process_on_the_same_data_refuses_to_start(service: AllInOne) -> None:
    done = run_command("all", settings={"DATA_DIR": service.data_dir, "PORT": free_port()})

    assert done.returncode not in (0, None)
    [line] = (done.stdout + done.stderr).strip().splitlines()
    assert str(service.data_dir) in line
    assert str(service.pid) in line
    assert service.get("/readyz") == 200
    assert len(service.valkeys) == 1


def test_a_second_process_on_the_same_port_refuses_to_start(service: AllInOne) -> None:
    with all_in_one() as other:
        settings = {"DATA_DIR": other.data_dir, "PORT": service.port}
        done = run_command("all", settings=settings)

        assert done.returncode not in (0, None)
        lines = (done.stdout + done.stderr).strip().splitlines()
        assert str(service.port) in lines[-1]
        assert "Traceback" not in done.stderr
        assert other.valkeys == []


def test_the_command_line_finds_the_running_process_by_its_data_folder(service: AllInOne) -> None:
    done = run_command("accounts", "create", "--name", "shell", settings={"DATA_DIR": service.data_dir})

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("admin_token", ["generated", "given"])
async def test_the_printed_lines_work_when_pasted(admin_token: str) -> None:
    program("curl")
    with all_in_one() as service:
        if admin_token != "given":
            del service.env["NOTIFY_ADMIN_TOKEN"]
        service.start()
        service.wait_ready()
        await _paste_all(service)


async def _paste_all(service: AllInOne) -> None:
    env = service.env | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{service.env['PATH']}"}
    blocks = re.findall(r"^  (\S(?:.*\\\n)*.*)$", service.stdout, flags=re.M)
    curls = [block for block in blocks if block.startswith("curl")]
    [connect] = [block for block in blocks if "websocket" in block and not block.startswith("curl")]
    [publish] = [block for block in curls if "/v1/events" in block]
    before = curls[: curls.index(publish)]
    assert len(before) >= 2, service.stdout

    for block in before:
        await _pasted(block, env)
    client = await asyncio.create_subprocess_shell(
        f"exec {connect}", cwd=CHECKOUT, env=env, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert client.stdout is not None
        assert '"channels":1' in await _pasted(publish, env)
        frame = await asyncio.wait_for(client.stdout.readline(), 30)
        assert b"orders.paid" in frame
    finally:
        client.kill()
        await client.wait()
    for block in curls[curls.index(publish) + 1 :]:
        await _pasted(block, env)


async def _pasted(block: str, env: dict[str, str]) -> str:
    """Runs the lines in a shell with the same settings; returns the output. An HTTP error fails the test."""
    done = await asyncio.create_subprocess_shell(
        block.replace("curl ", "curl --silent --show-error --fail-with-body ", 1),
        cwd=CHECKOUT,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await done.communicate()
    assert done.returncode == 0, f"{block}\n{out.decode()}"
    return out.decode()


def test_logs_in_json_are_all_that_is_printed() -> None:
    with all_in_one() as service:
        service.env["NOTIFY_LOG_FORMAT"] = "json"
        service.start()
        service.wait_ready()
        settings = {"PORT": service.port, "LOG_FORMAT": "json", "DATA_DIR": "/dev/null"}
        unusable = run_command("all", settings=settings)
        output = service.stdout + service.stderr

    lines = [json.loads(line) for line in output.splitlines()]
    assert "service.started" in [line["name"] for line in lines]
    [refused] = [json.loads(line) for line in (unusable.stdout + unusable.stderr).splitlines()]
    assert refused["name"] == "start.refused"
    assert "/dev/null" in refused["why"]
    assert unusable.returncode == 2


def test_no_secret_is_printed(service: AllInOne) -> None:
    assert "curl" in service.stdout
    assert not re.search("ak_[0-9a-f]{80}", service.stdout + service.stderr)
