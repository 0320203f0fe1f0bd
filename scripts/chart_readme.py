"""The table of values in the chart's README, from the comments of values.yaml: ``make chart-readme``.

A comment that begins with ``# --`` describes the value below it. A value without one is in the table when it is not
a block of further values, with its default alone.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).parents[1] / "helm" / "todo-api"
_BEGIN: Final = "<!-- values: begin -->\n"
_END: Final = "<!-- values: end -->"


def descriptions(text: str) -> dict[str, str]:
    """Return the description of each value by its dotted path."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    pending = ""
    for line in text.splitlines():
        if comment := re.fullmatch(r"\s*# -- (.*)", line):
            pending = comment[1]
        elif key := re.match(r"( *)([\w.-]+):", line):
            while path and path[-1][0] >= len(key[1]):
                path.pop()
            path.append((len(key[1]), key[2]))
            if pending:
                found[".".join(name for _, name in path)] = pending
                pending = ""
    return found


def rows(values: dict[str, Any], described: dict[str, str], above: str = "") -> list[tuple[str, str, str]]:
    """Return path, description and default of every value to be set, in the order of the file."""
    listed: list[tuple[str, str, str]] = []
    for name, value in values.items():
        path = f"{above}{name}"
        is_block = isinstance(value, dict) and value
        if is_block and not (path in described and not any(key.startswith(f"{path}.") for key in described)):
            listed += rows(value, described, f"{path}.")
        else:
            default = json.dumps(value) if len(json.dumps(value)) <= 60 else "see values.yaml"
            listed.append((path, described.get(path, ""), default))
    return listed


def table(text: str) -> str:
    """Return the table for the text of a values.yaml."""
    lines = ["| Value | Meaning | Default |", "|---|---|---|"]
    for path, meaning, default in rows(yaml.safe_load(text), descriptions(text)):
        lines.append(f"| `{path}` | {meaning.replace('|', '&#124;')} | `{default}` |")
    return "\n".join(lines) + "\n"


def with_table(readme: str, values: str) -> str:
    """Return the README with the table between its marks replaced."""
    before, rest = readme.split(_BEGIN)
    return before + _BEGIN + table(values) + _END + rest.split(_END)[1]


if __name__ == "__main__":
    readme = CHART / "README.md"
    readme.write_text(with_table(readme.read_text(), (CHART / "values.yaml").read_text()))
