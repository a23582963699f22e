"""What any process needs: settings, connections, logs, exporters, an embedded server."""
