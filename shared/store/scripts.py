"""The Lua scripts of the store, by name."""

import re
from importlib.resources import files

from shared.redis.pipeline import Script

_INCLUDE = re.compile(r"^--include (\w+)$", re.MULTILINE)


def load_scripts() -> dict[str, Script]:
    """Every script in `shared/store/lua`, by name.

    A Redis script cannot load another one, so the line `--include X` is replaced by `included/X.lua`.
    """
    folder = files("shared.store") / "lua"

    def expand(source: str) -> str:
        return _INCLUDE.sub(lambda line: (folder / "included" / f"{line[1]}.lua").read_text(), source)

    return {
        file.name.removesuffix(".lua"): Script(file.name.removesuffix(".lua"), expand(file.read_text()))
        for file in folder.iterdir()
        if file.name.endswith(".lua")
    }
