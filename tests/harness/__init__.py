"""The test harness: real processes, a real Valkey, stock clients."""
