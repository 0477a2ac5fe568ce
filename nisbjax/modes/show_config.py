"""Mode config: the configuration as a run would have it, and what differs, and from what.

Neither reference system shows what its merged YAML comes to before a run is under way.
"""

from collections.abc import Mapping
from typing import Any

from nisbjax.config import base_config, flatten
from nisbjax.keys import page, ranges
from nisbjax.keys.meanings import meanings
from nisbjax.modes import presets
from nisbjax.typing import Config


def run(config: Config, source: str) -> None:
    """Prints every key with its value, then the keys that differ.

    Args:
      config: with the flags of the command line.
      source: preset, file or run that it comes from.

    Raises:
      InputError: a key holds what it may not.
    """
    ranges.check(config)
    print(text(flatten(config), source))


def text(found: Mapping[str, Any], source: str) -> str:
    """What `run` prints, of a configuration that was flattened."""
    lines = [f"{key} = {page.shown(found[key])}" for key in meanings()]
    lines += _differing(source, flatten(presets.load(source)), found)
    lines += _differing("nisbjax/config.py", flatten(base_config()), found)
    return "\n".join(lines)


def _differing(
    whose: str, before: Mapping[str, Any], found: Mapping[str, Any]
) -> list[str]:
    keys = [key for key in meanings() if before[key] != found[key]]
    if not keys:
        return ["", f"nothing differs from {whose}"]
    return ["", f"differs from {whose}:"] + [
        f"  {key}: {page.shown(before[key])} -> {page.shown(found[key])}"
        for key in keys
    ]
