"""Objectives: a fast burn of the error budget is critical, a slow one a warning, and what ended is over."""

from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest

from shared.meters import BOUNDS_S
from tests.deploy.chart import NAMESPACE, RELEASE
from tests.deploy.rules import GROUPS, groups_of, of_release, promtool, run_promtool
from tests.deploy.test_chart_values import SCHEMA

needs_promtool = pytest.mark.skipif(
    promtool() is None, reason="promtool is not installed (.ci/run builds it)"
)
OBJECTIVES = ("publish", "delivery", "webhook")
# objective: the share of errors that it allows
BUDGETS = {"publish": 0.001, "delivery": 0.05, "webhook": 0.01}
MINUTES = 26 * 60
PER_MINUTE = 10_000
# A webhook's minute is late or not, so that a few minutes tell a rate only roughly.
FAST = {"publish": 18.0, "delivery": 18.0, "webhook": 30.0}
# Evaluating a day minute by minute takes seconds, and rates of counters need it less often.
EVERY = {"publish": "5m", "delivery": "5m", "webhook": "1m"}


def errors(burns: list[float], objective: str) -> list[bool | int]:
    """What is bad in each minute, when the budget burns at these rates."""
    budget = BUDGETS[objective]
    if objective == "webhook":
        sums = [0.0, *accumulate(rate * budget for rate in burns)]
        return [int(after) > int(before) for before, after in pairwise(sums)]
    return [int(rate * budget * PER_MINUTE) for rate in burns]


def running_sum(numbers: list[Any]) -> str:
    total, written = 0, []
    for number in numbers:
        total += int(number)
        written.append(str(total))
    return " ".join(written)


def series(objective: str, burns: list[float]) -> dict[str, str]:
    bad = errors(burns, objective)
    good = [PER_MINUTE - int(each) for each in bad]
    match objective:
        case "publish":
            ours = 'job="notify-gateway",method="POST"'
            return {
                f'notify_http_requests_total{{{ours},status="503"}}': running_sum(bad),
                f'notify_http_requests_total{{{ours},status="202"}}': running_sum(good),
            }
        case "delivery":
            return {
                'notify_delivery_seconds_bucket{le="10.0"}': running_sum(good),
                "notify_delivery_seconds_count{}": running_sum([PER_MINUTE] * len(bad)),
            }
    return {"notify_webhook_delivery_lag_seconds{}": " ".join("90" if late else "0" for late in bad)}


def check(folder: Path, objective: str, burns: list[float], *fires: tuple[str, str]) -> None:
    """Lets the budget burn at these rates, one for each minute; then these alerts (severity, window) fire."""
    name = f"notification-gateway-{objective}-objective"
    [group] = [each for each in GROUPS if each["name"] == name]
    rules = [{**rule, "annotations": {}} if "alert" in rule else rule for rule in group["rules"]]
    own = {"namespace": NAMESPACE, "release": RELEASE, "slo": objective}
    test = {
        "interval": "1m",
        "input_series": [
            {"series": of_release(each).replace(",}", "}"), "values": values}
            for each, values in series(objective, burns).items()
        ],
        "alert_rule_test": [
            {
                "eval_time": f"{len(burns)}m",
                "alertname": f"Notify{objective.title()}BudgetBurns",
                "exp_alerts": [
                    {"exp_labels": {**own, "severity": severity, "window": window}}
                    for severity, window in fires
                ],
            }
        ],
    }
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": EVERY[objective], "tests": [test]}
    ran = {"groups": [{**group, "interval": EVERY[objective], "rules": rules}]}
    run_promtool(folder, "test", "rules", "tests.yaml", rules=ran, tests=tests)


every_objective = pytest.mark.parametrize("objective", OBJECTIVES)


@needs_promtool
@every_objective
def test_a_fast_burn_is_critical(tmp_path: Path, objective: str) -> None:
    after_a_calm_day = [0.0] * MINUTES + [FAST[objective]] * 70
    check(tmp_path, objective, after_a_calm_day, ("critical", "1h"))


@needs_promtool
@every_objective
def test_a_fast_burn_that_ended_is_over(tmp_path: Path, objective: str) -> None:
    check(tmp_path, objective, [0.0] * MINUTES + [FAST[objective]] * 70 + [0.0] * 60)


@needs_promtool
@every_objective
def test_a_slow_burn_is_a_warning(tmp_path: Path, objective: str) -> None:
    check(tmp_path, objective, [4.0] * MINUTES, ("warning", "1d"), ("warning", "3d"))


@needs_promtool
@every_objective
def test_within_the_objective_nothing_fires(tmp_path: Path, objective: str) -> None:
    rate = 0.0 if objective == "webhook" else 0.9
    check(tmp_path, objective, [rate] * MINUTES)


def test_an_objective_can_be_changed_and_left_out() -> None:
    objectives = {
        "publish": {"objectivePercent": 99.5},
        "delivery": {"enabled": False},
        "webhook": {"withinSeconds": 120},
    }
    found = groups_of({"objectives": objectives})
    names = [group["name"] for group in found]
    assert names == [
        "notification-gateway",
        "notification-gateway-publish-objective",
        "notification-gateway-webhook-objective",
    ]
    assert "> 14.4 * 0.005 and" in str(found[1]["rules"])
    assert "> bool 120" in found[2]["rules"][0]["expr"]


def test_a_delivery_is_in_time_by_a_bound_of_the_histogram() -> None:
    objectives = SCHEMA["properties"]["metrics"]["properties"]["rules"]["properties"]["objectives"]
    allowed = objectives["properties"]["delivery"]["properties"]["withinSeconds"]["enum"]
    assert allowed
    assert set(allowed) <= set(BOUNDS_S)
