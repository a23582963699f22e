"""Image, compose file and chart fit the code; no container engine is needed to check it."""
