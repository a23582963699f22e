"""Stock servers as receivers of webhooks, and stock clients at our doors."""
