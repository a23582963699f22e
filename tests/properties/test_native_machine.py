"""Native channels against the model: what was answered arrives in order, and nothing that is excluded."""

import pytest
from hypothesis import settings

from shared.store.scripts import load_scripts
from tests.harness.valkey import Valkey
from tests.properties.machine import search
from tests.properties.native_installation import NativeActor
from tests.properties.native_machine import NATIVE_BUDGET, NativeChannels


def test_native_channels_follow_the_model(valkey: Valkey) -> None:
    search(valkey, scripts=load_scripts(), actor=NativeActor, machine=NativeChannels, budget=NATIVE_BUDGET)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_native_channels_follow_the_model_for_long(valkey: Valkey) -> None:
    """Other examples in each run; a failure prints its steps."""
    budget = settings(NATIVE_BUDGET, derandomize=False, max_examples=500, stateful_step_count=50)
    search(valkey, scripts=load_scripts(), actor=NativeActor, machine=NativeChannels, budget=budget)
