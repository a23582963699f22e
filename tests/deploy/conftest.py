"""Where there is no Helm, what needs it is left out: see pyproject.toml."""

import importlib.util

_NEEDS_HELM = [
    "test_alerts.py",
    "test_chart.py",
    "test_chart_network.py",
    "test_chart_values.py",
    "test_in_the_cluster.py",
]

collect_ignore = [] if importlib.util.find_spec("helm_python") else _NEEDS_HELM
