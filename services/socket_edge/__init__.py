"""LeaseHolder connections: one socket for each channel, drained from its queue."""
