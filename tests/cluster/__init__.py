"""A real one-node Kubernetes, and what happens to notifications while it is operated: `make cluster`."""
