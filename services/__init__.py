"""The four services, and all of them in one process."""
