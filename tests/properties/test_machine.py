"""The engine against the model: nothing pending is lost, doubled after it was acked, or out of order."""

import pytest
from hypothesis import settings

from shared.store.scripts import load_scripts
from tests.harness.valkey import Valkey
from tests.properties.machine import BUDGET, searches


def test_the_engine_does_what_the_model_says(valkey: Valkey) -> None:
    searches(valkey, scripts=load_scripts())


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_engine_does_what_the_model_says_for_long(valkey: Valkey) -> None:
    """Other examples each time; what it finds is told with the steps that lead there."""
    budget = settings(BUDGET, derandomize=False, max_examples=500, stateful_step_count=60)
    searches(valkey, scripts=load_scripts(), budget=budget)
