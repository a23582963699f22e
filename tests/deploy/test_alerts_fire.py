"""Each alert fires when it should, by Prometheus' own promtool, and never because of another installation."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.chart import NAMESPACE, RELEASE
from tests.deploy.files import DEPLOY
from tests.deploy.rules import ALERTS, GROUPS, of_release, promtool, run_promtool

pytestmark = pytest.mark.skipif(promtool() is None, reason="promtool is not installed (.ci/run builds it)")

Labels = dict[str, str]
EDGE = 'job="notify-socket-edge",instance="edge"'
GATEWAY = 'job="notify-gateway",instance="gateway"'
DISPATCHER = 'job="notify-webhook-dispatcher",instance="dispatcher"'
REAPER = 'job="notify-expiry-reaper",instance="reaper"'
TARGET = {"job": "notify-socket-edge", "instance": "edge"}
# What a healthy process shows.
HEALTHY = {
    f"notify_redis_up{{{GATEWAY}}}": "1x600",
    f"notify_redis_up{{{EDGE}}}": "1x600",
    f"notify_redis_up{{{DISPATCHER}}}": "1x600",
    f"notify_redis_up{{{REAPER}}}": "1x600",
    f"notify_sockets{{{EDGE}}}": "5x600",
}
POLLS = f'notify_worker_polls_total{{worker="webhook-dispatcher",{DISPATCHER}}}'
ROUNDS = f'notify_reaper_rounds_total{{result="done",{REAPER}}}'
FAILED_ROUNDS = f'notify_reaper_rounds_total{{result="failed",{REAPER}}}'


@dataclass(frozen=True)
class Case:
    """Series of one release by which an alert fires; by those of `calm` it does not."""

    series: dict[str, str]
    calm: dict[str, str]
    labels: Labels = field(default_factory=dict)
    at: str = "40m"


def bucket(name: str, le: str, labels: str) -> str:
    return f'notify_{name}_seconds_bucket{{le="{le}",{labels}}}'


def without(label: str) -> dict[str, str]:
    """The healthy series but those with this label."""
    return {series: values for series, values in HEALTHY.items() if label not in series}


def slow(name: str, labels: str, *, within: str, beyond: str) -> Case:
    """All of ten calls a minute take longer than `within`; when it is calm all are quicker."""
    late = {bucket(name, within, labels): "0x60", bucket(name, beyond, labels): "0+10x60"}
    quick = {bucket(name, within, labels): "0+10x60", bucket(name, beyond, labels): "0+10x60"}
    every = {bucket(name, "+Inf", labels): "0+10x60"}
    return Case(late | every, quick | every)


def share(name: str, bad: str, good: str, *, labels: Labels | None = None) -> Case:
    """Nine of ten are bad; when it is calm none is."""
    series = {f"{name}{{{bad}}}": "0+900x60", f"{name}{{{good}}}": "0+100x60"}
    return Case(series, {f"{name}{{{bad}}}": "0x60", f"{name}{{{good}}}": "0+1000x60"}, labels or {})


def level(name: str, labels: str, *, high: str, low: str, kept: Labels | None = None) -> Case:
    return Case({f"{name}{{{labels}}}": f"{high}x60"}, {f"{name}{{{labels}}}": f"{low}x60"}, kept or {})


CONNECTED = f'connected="yes",kind="websocket",{REAPER}'
CASES: dict[str, Case] = {
    "NotifyProcessDown": level("up", EDGE, high="0", low="1", kept=TARGET),
    "NotifyNoGateway": Case(without("notify-gateway"), HEALTHY, {"job": "notify-gateway"}),
    "NotifyNoEdge": Case(without("notify-socket-edge"), HEALTHY, {"job": "notify-socket-edge"}),
    "NotifyNoDispatcher": Case({**HEALTHY, POLLS: "0+1x10 10x600"}, {**HEALTHY, POLLS: "0+1x600"}),
    "NotifyNoReaper": Case(
        # All of its rounds fail.
        {**HEALTHY, ROUNDS: "0+1x10 10x600", FAILED_ROUNDS: "0+1x600"},
        {**HEALTHY, ROUNDS: "0+1x600"},
    ),
    "NotifyRedisDown": level("notify_redis_up", EDGE, high="0", low="1", kept=TARGET),
    "NotifyRedisFull": level(
        "notify_redis_errors_total", f'error="OutOfMemoryError",{EDGE}', high="0+10", low="7"
    ),
    "NotifyRedisMemoryHigh": Case(
        {
            f'notify_redis_memory_bytes{{primary="a",{REAPER}}}': "90x60",
            f'notify_redis_memory_limit_bytes{{primary="a",{REAPER}}}': "100x60",
        },
        {
            f'notify_redis_memory_bytes{{primary="a",{REAPER}}}': "90x60",
            # No limit.
            f'notify_redis_memory_limit_bytes{{primary="a",{REAPER}}}': "0x60",
        },
        {"primary": "a"},
    ),
    "NotifyRedisErrors": level(
        "notify_redis_errors_total",
        f'error="TimeoutError",{EDGE}',
        high="0+60",
        low="7",
        kept={"error": "TimeoutError"},
    ),
    "NotifyRedisSlow": replace(
        slow("redis_pipeline", GATEWAY, within="0.25", beyond="0.5"), labels={"job": "notify-gateway"}
    ),
    "NotifyClockOff": level("notify_clock_offset_seconds", EDGE, high="-3", low="0.1", kept=TARGET),
    "NotifyRedisClocksDiffer": level("notify_redis_clock_spread_seconds", EDGE, high="3", low="0.1"),
    "NotifyRequestsFail": share(
        "notify_http_requests_total",
        f'method="GET",status="503",{GATEWAY}',
        f'method="GET",status="200",{GATEWAY}',
        labels={"job": "notify-gateway"},
    ),
    "NotifyPublishSlow": slow("publish", GATEWAY, within="1.0", beyond="2.5"),
    "NotifyNothingAcked": Case(
        {f'notify_sent_total{{dialect="pelion",{EDGE}}}': "0+10x60", f"notify_acked_total{{{EDGE}}}": "0x60"},
        {
            f'notify_sent_total{{dialect="pelion",{EDGE}}}': "0+10x60",
            f"notify_acked_total{{{EDGE}}}": "0+1x60",
        },
    ),
    "NotifyDeliveryStalled": Case(
        {
            f"notify_oldest_pending_seconds{{{CONNECTED}}}": "90x60",
            f'notify_sent_total{{dialect="pelion",{EDGE}}}': "7x60",
        },
        {
            f"notify_oldest_pending_seconds{{{CONNECTED}}}": "90x60",
            f'notify_sent_total{{dialect="pelion",{EDGE}}}': "0+1x60",
        },
    ),
    "NotifyPendingLong": level(
        "notify_oldest_pending_seconds", CONNECTED, high="400", low="200", kept={"kind": "websocket"}
    ),
    "NotifyClientAckSlow": slow("client_ack", f'dialect="pelion",{EDGE}', within="5.0", beyond="10.0"),
    "NotifyDropped": level(
        "notify_dropped_total", f'reason="too-old",{EDGE}', high="0+1", low="7", kept={"reason": "too-old"}
    ),
    "NotifyHandshakesFail": share(
        "notify_handshakes_total", f'outcome="failed",{EDGE}', f'outcome="accepted",{EDGE}'
    ),
    "NotifyHandshakesRefused": share(
        "notify_handshakes_total", f'outcome="refused",{EDGE}', f'outcome="accepted",{EDGE}'
    ),
    "NotifyTakeovers": Case(
        {
            f"notify_takeovers_total{{{EDGE}}}": "0+90x60",
            f'notify_handshakes_total{{outcome="accepted",{EDGE}}}': "0+100x60",
        },
        {
            f"notify_takeovers_total{{{EDGE}}}": "0+9x60",
            f'notify_handshakes_total{{outcome="accepted",{EDGE}}}': "0+100x60",
        },
    ),
    "NotifySocketsFail": level(
        "notify_sockets_closed_total",
        f'reason="unexpected",{EDGE}',
        high="0+1",
        low="7",
        kept={"reason": "unexpected"},
    ),
    "NotifyStreamsLost": Case(
        {
            f'notify_stream_recoveries_total{{outcome="lost",{EDGE}}}': "0+1x60",
            f'notify_stream_recoveries_total{{outcome="recovered",{EDGE}}}': "0+9x60",
        },
        {
            f'notify_stream_recoveries_total{{outcome="lost",{EDGE}}}': "7x60",
            f'notify_stream_recoveries_total{{outcome="trimmed",{EDGE}}}': "0+9x60",
        },
    ),
    "NotifyStreamOverflows": Case(
        {
            f"notify_stream_overflows_total{{{EDGE}}}": "0+2x60",
            f"notify_stream_readers{{{EDGE}}}": "100x60",
        },
        {
            f"notify_stream_overflows_total{{{EDGE}}}": "0+2x60",
            f"notify_stream_readers{{{EDGE}}}": "1000x60",
        },
    ),
    "NotifyWebhookDeliveryLag": level("notify_webhook_delivery_lag_seconds", DISPATCHER, high="90", low="30"),
    "NotifyWebhookPendingLong": level(
        "notify_oldest_pending_seconds", f'connected="no",kind="webhook",{REAPER}', high="50000", low="40000"
    ),
    "NotifyWebhooksFail": Case(
        {
            f'notify_webhook_request_seconds_count{{outcome="timed-out",{DISPATCHER}}}': "0+900x60",
            f'notify_webhook_request_seconds_count{{outcome="accepted",{DISPATCHER}}}': "0+100x60",
        },
        {
            f'notify_webhook_request_seconds_count{{outcome="timed-out",{DISPATCHER}}}': "0+100x60",
            f'notify_webhook_request_seconds_count{{outcome="accepted",{DISPATCHER}}}': "0+900x60",
        },
        at="50m",
    ),
}
OF_OBJECTIVES = {alert["alert"] for alert in ALERTS if "BudgetBurns" in alert["alert"]}
BY_ABSENCE = ("NotifyNoGateway", "NotifyNoEdge")
GROUP = [{**GROUPS[0], "rules": [{**rule, "annotations": {}} for rule in GROUPS[0]["rules"]]}]


def story(
    alert: str, series: dict[str, str], *, at: str, fires: list[Labels], **release: str
) -> dict[str, Any]:
    """One test of promtool: these series of a release, and the alerts of this name that fire then."""
    rows = {of_release(each, **release): values for each, values in series.items()}
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in rows.items()],
        "alert_rule_test": [
            {"eval_time": at, "alertname": alert, "exp_alerts": [{"exp_labels": each} for each in fires]}
        ],
    }


def check(folder: Path, *stories: dict[str, Any]) -> None:
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": list(stories)}
    run_promtool(folder, "test", "rules", "tests.yaml", rules={"groups": GROUP}, tests=tests)


def severity(alert: str) -> str:
    [found] = [each for each in GROUPS[0]["rules"] if each["alert"] == alert]
    return str(found["labels"]["severity"])


def labels_of(alert: str) -> Labels:
    own = {"namespace": NAMESPACE, "release": RELEASE, "severity": severity(alert)}
    return {**own, **CASES[alert].labels}


def test_every_alert_has_its_case() -> None:
    assert set(CASES) | OF_OBJECTIVES == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_and_calms_down(tmp_path: Path, alert: str) -> None:
    case = CASES[alert]
    check(
        tmp_path,
        story(alert, case.series, at=case.at, fires=[labels_of(alert)]),
        story(alert, case.calm, at=case.at, fires=[]),
    )


elsewhere = pytest.mark.parametrize(
    "other", [{"release": "other"}, {"namespace": "staging"}], ids=["release", "namespace"]
)


@elsewhere
def test_the_trouble_of_another_installation_is_not_ours(tmp_path: Path, other: dict[str, str]) -> None:
    ours = [alert for alert in CASES if alert not in BY_ABSENCE]
    assert len(ours) > 15
    stories = [story(alert, CASES[alert].series, at=CASES[alert].at, fires=[], **other) for alert in ours]
    check(tmp_path, *stories)


@elsewhere
def test_the_health_of_another_installation_hides_nothing(tmp_path: Path, other: dict[str, str]) -> None:
    stories = []
    for alert, case in CASES.items():
        test = story(alert, case.series, at=case.at, fires=[labels_of(alert)])
        test["input_series"] += story(alert, case.calm, at=case.at, fires=[], **other)["input_series"]
        stories.append(test)
    check(tmp_path, *stories)


def test_a_summary_is_written_out(tmp_path: Path) -> None:
    test = story("NotifyWebhookDeliveryLag", CASES["NotifyWebhookDeliveryLag"].series, at="40m", fires=[])
    labels = {"namespace": NAMESPACE, "release": RELEASE, "severity": "warning"}
    test["alert_rule_test"][0]["exp_alerts"] = [
        {
            "exp_labels": labels,
            "exp_annotations": {
                "summary": "Webhook deliveries are late: the oldest is overdue by 1m 30s.",
                "runbook_url": "https://docs.example.com/runbook.md#notifywebhookdeliverylag",
            },
        }
    ]
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    run_promtool(tmp_path, "test", "rules", "tests.yaml", rules={"groups": GROUPS}, tests=tests)


def test_promtool_accepts_every_rule(tmp_path: Path) -> None:
    said = run_promtool(tmp_path, "check", "rules", "rules.yaml", rules={"groups": GROUPS})
    assert "SUCCESS" in said


def test_promtool_accepts_the_files_of_the_compose_file(tmp_path: Path) -> None:
    folder = DEPLOY / "prometheus"
    assert "SUCCESS" in run_promtool(tmp_path, "check", "rules", str(folder / "alerts.yaml"))
    # Only the syntax: the rules are at their place in the container.
    run_promtool(tmp_path, "check", "config", "--syntax-only", str(folder / "prometheus.yaml"))
