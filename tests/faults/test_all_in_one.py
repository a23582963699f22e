"""`python -m services all`: one process, one port, a Valkey of its own that begins and ends with it."""

import os
import signal
import stat
from collections.abc import Iterator

import aiohttp
import pytest

from tests.conftest import Listen
from tests.harness.all_in_one import AllInOne, all_in_one
from tests.harness.api import Api, ApiKey
from tests.harness.events import readings
from tests.harness.processes import run_command
from tests.harness.waiting import wait_until


@pytest.fixture
def service() -> Iterator[AllInOne]:
    with all_in_one() as process:
        process.start()
        process.wait_ready()
        yield process


@pytest.fixture
def api(service: AllInOne, http: aiohttp.ClientSession) -> Api:
    return Api(http, service.url, service.admin_token)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("whom", ["the process", "its group"])
async def test_a_signal_ends_it_cleanly_and_its_valkey_last(
    service: AllInOne, api: Api, listen: Listen, number: signal.Signals, whom: str
) -> None:
    """What it does on its way out still reaches Valkey: the next start finds it."""
    reading_key, waiting_key = await api.api_key(), await api.api_key()
    for key in (reading_key, waiting_key):
        await api.register(key)
        await api.publish(key, *readings(range(10), to=key.id))
    receiver = await listen(reading_key, service.url)
    await receiver.received_numbers(range(10))
    [valkey] = service.valkeys
    assert os.getsid(valkey) != os.getsid(service.pid)

    if whom == "the process":
        service.signal(number)
    else:
        service.signal_group(number)

    assert await receiver.closed(within_s=10) == 1001
    await wait_until(lambda: service.ended, within_s=15)
    assert service.exit_code == 0
    assert service.valkeys == []
    assert "Traceback" not in service.stderr
    if number == signal.SIGINT:
        await _started(service)
        assert await api.queue_size(reading_key) == 0
        assert await api.status(reading_key) == "disconnected"
        assert await api.queue_size(waiting_key) == 10


async def test_killed_it_leaves_a_valkey_that_the_next_start_ends(
    service: AllInOne, api: Api, key: ApiKey
) -> None:
    await api.register(key)
    await api.publish(key, *readings(range(10), to=key.id))
    [left_over] = service.valkeys

    service.kill()
    assert service.valkeys == [left_over]
    await _started(service)

    assert len(service.valkeys) == 1
    assert service.valkeys != [left_over]
    assert await api.queue_size(key) == 10


async def test_without_its_valkey_it_ends_and_says_why(service: AllInOne) -> None:
    [valkey] = service.valkeys

    os.kill(valkey, signal.SIGKILL)

    await wait_until(lambda: service.ended, within_s=15)
    assert service.exit_code not in (0, None)
    assert "Valkey" in service.stderr.strip().splitlines()[-1]
    assert "Traceback" not in service.stderr


async def test_what_it_made_at_its_first_start_is_there_at_the_second(http: aiohttp.ClientSession) -> None:
    with all_in_one() as service:
        del service.env["NOTIFY_ADMIN_TOKEN"]
        await _started(service)
        token_file = service.data_dir / "admin-token"
        token = token_file.read_text().strip()
        assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(service.data_dir.stat().st_mode) == 0o700
        account = await Api(http, service.url, token).account()
        told = service.stdout

        service.terminate()
        await wait_until(lambda: service.ended, within_s=15)
        await _started(service)

        assert service.stdout == told * 2
        assert token_file.read_text().strip() == token
        child = await Api(http, service.url, token).account(parent=account)
        assert child != account


def test_a_wrong_setting_stops_it_before_anything_is_made() -> None:
    with all_in_one() as service:
        done = run_command("all", settings={"DATA_DIR": service.data_dir, "PORT": "eighty"})
        assert done.returncode != 0
        [line] = (done.stdout + done.stderr).strip().splitlines()
        assert "NOTIFY_PORT" in line
        assert not service.data_dir.exists()


async def test_an_unknown_setting_warns_and_it_starts() -> None:
    with all_in_one(POTR=1) as service:
        await _started(service)
        assert len([line for line in service.stderr.splitlines() if "NOTIFY_POTR" in line]) == 1


async def _started(service: AllInOne) -> None:
    service.start()
    await wait_until(lambda: service.ready, within_s=60)
