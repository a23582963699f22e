"""Publishing against the model of routing: a change that was answered counts for every later publish."""

import pytest
from hypothesis import settings

from shared.publish import lots, round
from shared.store.scripts import load_scripts
from tests.harness.valkey import Valkey
from tests.properties.machine import search
from tests.properties.routing_installation import RoutingActor
from tests.properties.routing_machine import ROUTING_BUDGET, RoutingChanges


def test_publishes_follow_the_model(valkey: Valkey) -> None:
    search(
        valkey,
        scripts=load_scripts(),
        actor=RoutingActor,
        machine=RoutingChanges,
        budget=ROUTING_BUDGET,
    )


def test_publishes_in_lots_of_one_append_follow_the_model(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every publish with two events, or to two channels, takes several round trips."""
    for module in (lots, round):
        monkeypatch.setattr(module, "LOT_COST", 4)
    monkeypatch.setattr(lots, "_ON_THE_WAY", 4)
    monkeypatch.setattr(lots, "_SMALL", 4)
    monkeypatch.setattr(round, "APPEND_LOT", 1)
    search(
        valkey,
        scripts=load_scripts(),
        actor=RoutingActor,
        machine=RoutingChanges,
        budget=ROUTING_BUDGET,
    )


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_publishes_follow_the_model_for_long(valkey: Valkey) -> None:
    """Other examples in each run; a failure prints its steps."""
    budget = settings(ROUTING_BUDGET, derandomize=False, max_examples=400)
    search(valkey, scripts=load_scripts(), actor=RoutingActor, machine=RoutingChanges, budget=budget)
