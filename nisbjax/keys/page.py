"""The keys as a reader wants them: one section for `--help`, all for docs/configuration.md.

    python -m nisbjax.keys.page > docs/configuration.md      (or: make docs)

Both are put together from three tables (`meanings`, `ranges`, the defaults of
`config.base_config`), so that none of them is written out twice. PyTC documents its keys by
hand.
"""

import json
from typing import Any

from nisbjax.config import base_config, flatten
from nisbjax.errors import InputError
from nisbjax.keys.meanings import meanings
from nisbjax.keys.ranges import RANGES

_HEAD = """# Configuration: every key

`--config.SECTION.KEY=VALUE` sets a key; `--help=SECTION` prints a section of this page, and
`--mode=config` the keys of a run with what differs from its preset. A triple may be given as
one number (`--config.data.patch=64`). `make docs` writes this page from `nisbjax/keys/`: change
a sentence in `meanings.py`, what a key may hold in `ranges.py`, a default in `nisbjax/config.py`.
"""


def sections() -> list[str]:
    """Sections in their order; "" for the keys that stand in none."""
    return list(dict.fromkeys(key.rpartition(".")[0].split(".")[0] for key in RANGES))


def keys_of(section: str) -> list[str]:
    """Dotted keys of a section, in their order.

    Raises:
      InputError: there is no such section.
    """
    if section not in sections():
        named = ", ".join(name for name in sections() if name)
        raise InputError(f"there is no section {section!r}; wanted one of {named}")
    return [key for key in meanings() if section_of(key) == section]


def section_of(key: str) -> str:
    """`data` of `data.train.image`, "" of `seed`."""
    return key.split(".")[0] if "." in key else ""


def section_text(section: str) -> str:
    """Key, default, meaning and range of each key of a section, for a terminal."""
    defaults = flatten(base_config())
    lines = []
    for key in keys_of(section):
        lines += [
            f"--config.{key}={shown(defaults[key])}",
            f"    {meanings()[key]}",
            f"    {_range(key)}",
        ]
    return "\n".join(lines)


def page() -> str:
    """docs/configuration.md."""
    defaults = flatten(base_config())
    parts = [_HEAD]
    for section in sections():
        title = f"`{section}`" if section else "Of the whole run"
        rows = [
            f"| `{key}` | `{shown(defaults[key])}` | {_cell(meanings()[key])} | "
            f"{_cell(RANGES[key].wanted)} |"
            for key in keys_of(section)
        ]
        head = "| key | default | what it means | wanted |\n| --- | --- | --- | --- |"
        parts.append("\n".join([f"## {title}\n", head, *rows]) + "\n")
    return "\n".join(parts)


def shown(value: Any) -> str:
    """A value as a flag takes it: tuples in parentheses, text as it is, "" for none."""
    if isinstance(value, list | tuple):
        inside = ",".join(_inside(each) for each in value)
        return f"({inside}{',' * (len(value) == 1)})"
    return value or '""' if isinstance(value, str) else str(value)


def _inside(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else shown(value)


def _range(key: str) -> str:
    wanted = RANGES[key].wanted
    return f"{wanted[0].upper()}{wanted[1:]}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
