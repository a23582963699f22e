"""The services against the model, with owners that acknowledge by frame, give back, or are silent."""

import pytest
from hypothesis import settings

from shared.store.scripts import load_scripts
from tests.harness.valkey import Valkey
from tests.properties.ack_machine import AckActor, FrameOwners
from tests.properties.machine import BUDGET, search


def test_native_owners_follow_the_model(valkey: Valkey) -> None:
    search(valkey, scripts=load_scripts(), actor=AckActor, machine=FrameOwners)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_native_owners_follow_the_model_for_long(valkey: Valkey) -> None:
    """Other examples in each run; a failure prints its steps."""
    budget = settings(BUDGET, derandomize=False, max_examples=500, stateful_step_count=60)
    search(valkey, scripts=load_scripts(), actor=AckActor, machine=FrameOwners, budget=budget)
