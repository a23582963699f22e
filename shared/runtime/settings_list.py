"""All settings as a list for a terminal."""

from shared.runtime.setting_names import variable
from shared.runtime.settings import Settings


def settings_table() -> str:
    """Every setting's name, default and meaning, aligned for a terminal."""
    rows = [("NAME", "DEFAULT", "MEANING")]
    for field, info in Settings.model_fields.items():
        default = info.get_default()
        text = "unset" if default in (None, ()) or info.default_factory is not None else _format(default)
        rows.append((variable(field), text, info.description or ""))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:{widths[0]}}  {default:{widths[1]}}  {text}" for name, default, text in rows)


def _format(value: object) -> str:
    """As an environment variable."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
