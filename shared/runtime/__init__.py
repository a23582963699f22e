"""What any process needs: settings, serving, logs, exporters, an embedded Valkey."""
