"""The client's tests run on the same servers as the store's."""

from tests.store.conftest import (
    _one_slot,
    backend,
    overheard,
    real_backend,
    redis,
    shared_valkey,
    stores,
    valkey,
)

__all__ = ["_one_slot", "backend", "overheard", "real_backend", "redis", "shared_valkey", "stores", "valkey"]
