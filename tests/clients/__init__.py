"""The clients that people use, unchanged but for their host."""
