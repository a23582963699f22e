"""The parts of the harness that compute figures."""

import json
import math
import os
from typing import Any

import pytest

from tests.load.connections import frame_at
from tests.load.latencies import Latencies, merged, percentile, percentiles_ms
from tests.load.messages import Target, read_path, template
from tests.load.processes import Sample, Watched, Window, cpu_of, joined, rss_of
from tests.load.recorder import Recorder
from tests.load.rest import ApiKeys, Rest
from tests.load.result import Result, client_warnings, cpu_figures
from tests.load.scenarios.neighbours import ratios as ratios_to_alone
from tests.load.scenarios.tenants import ratios
from tests.load.sequences import Count
from tests.load.table import comparison, table

SERVERS = (Watched("edge-0", "edge", 1), Watched("edge-1", "edge", 2), Watched("redis", "redis", 3))


def window(*, seconds: float, before: dict[str, float], after: dict[str, float], busy_s: float = 0) -> Window:
    watched = (*SERVERS, Watched("publisher-0", "client", 4))
    return Window(watched, [Sample(0, before, {}, 0), Sample(seconds, after, {}, busy_s)])


def test_percentiles_are_values_that_occurred() -> None:
    ordered = list(range(1, 101))
    assert (percentile(ordered, 50), percentile(ordered, 99), percentile(ordered, 100)) == (50, 99, 100)
    assert math.isnan(percentile([], 50))


def test_latencies_of_workers_are_merged() -> None:
    first, second = Latencies(), Latencies()
    for took_us in (1000, 3000):
        first.add(took_us, at_us=1)
    second.add(2000, at_us=600_000)
    whole = merged([first, second])
    assert len(whole) == 3
    assert percentiles_ms(whole) == {"p50": 2, "p90": 3, "p99": 3, "max": 3}
    assert percentiles_ms(Latencies()) == {}


@pytest.mark.parametrize("size", [120, 199, 200, 201, 202, 203, 1000])
@pytest.mark.parametrize("to", [None, "a" * 32])
def test_a_notification_has_the_requested_size_and_carries_lane_number_and_time(
    size: int, to: str | None
) -> None:
    event = json.loads(template(Target(12, to=to), size=size).event(3, 45, 678))
    assert len(json.dumps(event["data"], separators=(",", ":"))) == size
    assert read_path(event["data"]["path"]) == (3, 45, 678)
    assert event.get("to") == to


def test_a_size_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="at least"):
        template(Target(0), size=50)


def test_the_recorder_counts_notifications_and_garbled_messages() -> None:
    recorder = Recorder()
    items = [{"path": f"/0/{number}/0"} for number in (0, 1, 1)]
    recorder.record(5, json.dumps({"notifications": items}).encode())
    recorder.record(5, b"no JSON")
    recorder.record(5, b'{"notifications":[{"ep":"without a path"}]}')
    recorded = recorder.recorded()
    assert (recorder.received, recorded.garbled, len(recorded.latencies), recorded.messages) == (2, 2, 2, 3)
    recorder.reset()
    assert (recorder.received, len(recorder.recorded().latencies)) == (2, 0)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536])
def test_a_frame_is_read_when_it_is_complete(length: int) -> None:
    if length < 126:
        size = bytes((length,))
    elif length < 65_536:
        size = b"\x7e" + length.to_bytes(2)
    else:
        size = b"\x7f" + length.to_bytes(8)
    whole = bytearray(b"??\x81" + size + b"x" * length)
    assert all(frame_at(whole[:end], 2) is None for end in (3, len(whole) - 1) if end < len(whole))
    first, start, end = frame_at(whole, 2) or (0, 0, 0)
    assert (first, bytes(whole[start:end]), end) == (0x81, b"x" * length, len(whole))


def test_cpu_per_notification_by_role() -> None:
    before = {"edge-0": 1.0, "edge-1": 1.0, "redis": 5.0, "publisher-0": 0.0}
    after = {"edge-0": 1.2, "edge-1": 1.1, "redis": 5.1, "publisher-0": 1.9}
    figures = cpu_figures(window(seconds=2, before=before, after=after), delivered=1000)
    assert figures == {"cpu_edge_us": 300.0, "cpu_redis_us": 100.0, "cpu_all_us": 400.0}


def test_a_harness_at_its_limit_is_a_warning() -> None:
    before = dict.fromkeys(("edge-0", "edge-1", "redis", "publisher-0"), 0.0)
    idle = before | {"publisher-0": 0.5}
    assert client_warnings(window(seconds=1, before=before, after=idle)) == []
    full = before | {"publisher-0": 0.95}
    assert "harness was the bottleneck" in client_warnings(window(seconds=1, before=before, after=full))[0]
    assert (
        "published late" in client_warnings(window(seconds=1, before=before, after=idle), behind_p99_ms=50)[0]
    )


def test_cpu_of_other_processes_is_a_warning() -> None:
    before = dict.fromkeys(("edge-0", "edge-1", "redis", "publisher-0"), 0.0)
    shared = window(seconds=1, before=before, after=before, busy_s=100)
    assert any("other processes" in warning for warning in client_warnings(shared))


def test_joined_windows_leave_out_what_is_between_them() -> None:
    before, after = {"edge-0": 1.0, "redis": 5.0}, {"edge-0": 1.5, "redis": 6.0}
    first = window(seconds=2, before=before, after=after, busy_s=3)
    later = Window(
        first.watched,
        [
            Sample(10, {"edge-0": 9.0, "redis": 7.0}, {}, 20),
            Sample(13, {"edge-0": 9.25, "redis": 7.0}, {}, 21),
        ],
    )
    whole = joined([first, later])
    assert (whole.took_s, whole.cpu_s("edge"), whole.cpu_s("redis")) == (5.0, 0.75, 1.0)
    assert whole.samples[-1].busy_s - whole.samples[0].busy_s == 4
    assert len(first.samples) == 2


def test_the_ratio_of_cpu_is_by_process() -> None:
    many = Result("many", {"cpu_edge_us": 30.0, "cpu_redis_us": 10.0, "cpu_all_us": 90.0}, Count())
    one = Result("one", {"cpu_edge_us": 20.0, "cpu_redis_us": 0.0, "cpu_all_us": 60.0}, Count())
    assert ratios(many, one) == {"cpu_edge_ratio": 1.5, "cpu_all_ratio": 1.5}


async def test_further_accounts_have_a_publisher_and_a_receiver_each() -> None:
    class Accounts(Rest):
        def __init__(self) -> None:
            self.keys: list[tuple[str, str]] = []
            self.accounts = 0
            self.revoked: list[tuple[str, str | None]] = []

        async def call(
            self, method: str, path: str, *, token: str | None = None, json: Any = None, **_: Any
        ) -> Any:
            if method == "DELETE":
                self.revoked.append((path.rpartition("/")[2], token))
                return None
            if path == "/v1/accounts":
                self.accounts += 1
                return {"id": f"account-{self.accounts}"}
            account, [scope] = path.split("/")[3], json["scopes"]
            self.keys.append((account, scope))
            return {"id": f"{account} {len(self.keys)}", "secret": f"{account} {scope}"}

    keys = ApiKeys(rest := Accounts())
    await keys.create(2)
    publishers = await keys.add_accounts(2)
    assert [key.secret for key in publishers] == ["account-2 publish", "account-3 publish"]
    assert [key.secret for key in keys.receivers] == [
        *["account-1 receive"] * 2,
        "account-2 receive",
        "account-3 receive",
    ]
    # The admin token may be another one by now: what can do without it does.
    await keys.revoke_all()
    assert len(rest.keys) == len(dict(rest.revoked)) == 8
    own = {token for key, token in rest.revoked if key.startswith("account-1")}
    others = {token for key, token in rest.revoked if not key.startswith("account-1")}
    assert (own, others) == ({"account-1 admin"}, {None})
    assert rest.revoked[-1] == ("account-1 1", "account-1 admin"), "its own key goes last"


def test_a_process_can_be_sampled() -> None:
    assert cpu_of(os.getpid()) > 0
    assert rss_of(os.getpid()) > 1_000_000


def test_the_table_shows_every_run_and_the_comparison_the_ratios() -> None:
    results = [
        Result("one edge", {"latency_p50_ms": 2.0, "cpu_all_us": 400.0}, Count(10, 10)),
        Result("two edges", {"latency_p50_ms": 3.0}, Count(10, 9, lost=1), ["odd"]),
    ]
    shown = table(results)
    assert "one edge" in shown
    assert [line.split() for line in shown.splitlines() if "lost" in line] == [["lost", "0", "1"]]
    assert "! two edges: odd" in shown
    machine = {"commit": "abc"}
    earlier = [results[0].line({"rate": 10, "edges": 1}, machine)]
    now = [
        Result("one edge", {"latency_p50_ms": 1.0, "cpu_all_us": 500.0}, Count()).line({"rate": 20}, machine),
        Result("new", {}, Count()).line({}, machine),
    ]
    compared = comparison(now, earlier)
    assert "other options: rate" in compared
    assert "no earlier run of new" in compared
    ratios = [line.split()[-1] for line in compared.splitlines() if "µs" in line or " ms" in line]
    assert ratios == ["0.50", "1.25"]


def test_a_neighbours_figures_are_compared_with_those_of_the_account_alone() -> None:
    alone = Result("alone", {"sockets_p99_ms": 2.0, "webhooks_p99_ms": 4.0}, Count())
    beside = Result("flood", {"sockets_p99_ms": 5.0, "webhooks_p99_ms": 4.0}, Count())
    assert ratios_to_alone(beside, alone) == {"sockets_p99_ratio": 2.5, "webhooks_p99_ratio": 1.0}
