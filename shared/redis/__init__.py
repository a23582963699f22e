"""Our Redis client: connection, pipeline, cluster, sentinel and URLs. It knows no key of ours."""
