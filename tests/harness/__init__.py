"""What the stories and fault tests stand on: real processes, a real Valkey, stock clients."""
