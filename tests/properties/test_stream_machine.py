"""Readers of a stream against the model of what they may expect."""

import pytest
from hypothesis import settings

from shared.store.scripts import load_scripts
from tests.harness.valkey import Valkey
from tests.properties.machine import search
from tests.properties.stream_installation import Reader
from tests.properties.stream_machine import STREAM_BUDGET, StreamReading


def test_readers_follow_the_model(valkey: Valkey) -> None:
    search(valkey, scripts=load_scripts(), actor=Reader, machine=StreamReading, budget=STREAM_BUDGET)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_readers_follow_the_model_for_long(valkey: Valkey) -> None:
    """Other examples in each run; a failure prints its steps."""
    budget = settings(STREAM_BUDGET, derandomize=False, max_examples=1000)
    search(valkey, scripts=load_scripts(), actor=Reader, machine=StreamReading, budget=budget)
