"""The Lua scripts of the store, by name."""

import re
from importlib.resources import files

from shared.redis.pipeline import Script

_INCLUDE = re.compile(r"^--include (\w+)$", re.MULTILINE)


def load_scripts() -> dict[str, Script]:
    """Every script in `shared/store/lua`, by name.

    A Redis script cannot load another one, so the line `--include X` is replaced by `included/X.lua`, the
    first time that the script and what it includes need it.
    """
    folder = files("shared.store") / "lua"

    def expand(source: str, included: set[str]) -> str:
        def text_of(line: re.Match[str]) -> str:
            if line[1] in included:
                return ""
            included.add(line[1])
            return expand((folder / "included" / f"{line[1]}.lua").read_text(), included)

        return _INCLUDE.sub(text_of, source)

    scripts = ((file.name.removesuffix(".lua"), file) for file in folder.iterdir() if file.is_file())
    return {name: Script(name, expand(file.read_text(), set())) for name, file in scripts}
