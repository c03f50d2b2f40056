"""`make readme`: writes the README's generated parts, each between two marks, from their one source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ByteSize

from benchmarks.table import benchmarks_table
from runtime.settings import PREFIX, Settings

README = Path(__file__).resolve().parents[1] / "README.md"
_PART = re.compile(r"(<!-- (?P<name>\w+): [^\n]*-->\n).*?(<!-- /(?P=name) -->)", re.DOTALL)


_COMPUTED = {"local_paths": "the demo's", "memory_bytes": "3/4 of the machine's"}


def settings_table() -> str:
    """A row a setting: variable, default, description."""
    rows = [
        f"| `{PREFIX}{name.upper()}` | {_default(name, field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| variable | default | |", "|---|---|---|", *rows]) + "\n"


def _default(name: str, value: Any) -> str:
    if name in _COMPUTED:
        return _COMPUTED[name]
    if isinstance(value, ByteSize):
        return f"`{value.human_readable(separator='')}`"
    return "none" if value in ((), None) else f"`{value}`"


def rendered(text: str) -> str:
    """The README with its generated parts made anew."""
    parts = {"settings": settings_table, "benchmarks": benchmarks_table}
    return _PART.sub(lambda match: f"{match[1]}{parts[match['name']]()}{match[3]}", text)


if __name__ == "__main__":
    README.write_text(rendered(README.read_text("utf-8")), "utf-8")
