"""The client is tested on the same servers as the store."""

from tests.store.conftest import (
    _one_slot,
    backend,
    overheard,
    redis,
    shared_valkey,
    stores,
    valkey,
)

__all__ = ["_one_slot", "backend", "overheard", "redis", "shared_valkey", "stores", "valkey"]
