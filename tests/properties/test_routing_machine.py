"""Publishing against the model of routing: a change that was answered counts for every later publish."""

import pytest
from hypothesis import settings

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


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_publishes_follow_the_model_for_long(valkey: Valkey) -> None:
    """Other examples in each run; a failure prints its steps."""
    budget = settings(ROUTING_BUDGET, derandomize=False, max_examples=400)
    search(valkey, scripts=load_scripts(), actor=RoutingActor, machine=RoutingChanges, budget=budget)
