"""The lines of a manifest: how they are read, and what they say when taken in order.

A torn last line is what a kill leaves, and is dropped; any other damage is refused. Lines
that a manifest has lost are noticed by the number of parts that its last line names.
"""

import json
import os
import pathlib
import typing
from collections.abc import Mapping
from typing import Any

from nisbjax.store import records, schema
from nisbjax.store.places import Address, Place
from nisbjax.store.stored import Fact

NAME = ".manifest.jsonl"
_FILE = schema.either(schema.nothing(), schema.list_of(schema.whole(), 2))
_METADATA = schema.either(_FILE, schema.table_of())  # by size and CRC-32, or words
_FIRST = {"fingerprint": schema.table_of()}
_LINE = schema.either(
    _FIRST,
    {"key": schema.text(), "files": schema.optional(schema.table_of(_FILE))},
    {
        "finished": schema.table_of(),
        "metadata": schema.optional(schema.table_of(_METADATA)),
        "parts": schema.optional(schema.whole()),
    },
    {"forgotten": schema.list_of(schema.text())},
    {"note": schema.text()},
)


@typing.overload
def path_inside(artifact: Address) -> Address: ...
@typing.overload
def path_inside(artifact: str | pathlib.Path) -> pathlib.Path: ...
@typing.overload
def path_inside(artifact: str | os.PathLike) -> Place: ...


def path_inside(artifact: str | os.PathLike) -> Place:
    """Where the manifest of an artifact lies."""
    if isinstance(artifact, Address):
        return artifact / NAME
    return pathlib.Path(artifact) / NAME


class State:
    """What the lines of a manifest say, taken in their order."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[str, Any]] = {}
        self.names: dict[str, tuple[str, ...]] = {}  # of a part's files
        self.files: dict[str, Fact] = {}
        self.notes: dict[str, dict[str, Any]] = {}
        self.finish: dict[str, Any] | None = None
        self.metadata: dict[str, dict[str, Any] | Fact] = {}  # of arrays, at the finish

    def take(self, line: Mapping[str, Any]) -> None:
        if "finished" in line:
            # A manifest that has lost lines knows less than what there was to know.
            whole = line.get("parts") == len(self.parts)
            self.finish = line["finished"] if whole else None
            found = line.get("metadata", {})
            self.metadata = {
                n: (f[0], f[1]) if isinstance(f, list) else f for n, f in found.items()
            }
        elif "note" in line:
            self.notes[line["note"]] = dict(line)
        elif "forgotten" in line:
            self.finish, self.metadata = None, {}
            for key in line["forgotten"]:
                self.parts.pop(key, None)
                self.names.pop(key, None)
            kept = {name for names in self.names.values() for name in names}
            self.files = {name: self.files[name] for name in kept}
        elif "key" in line:
            key, named = line["key"], line.get("files", {})
            self.files |= {
                name: None if fact is None else (fact[0], fact[1])
                for name, fact in named.items()
            }
            self.names[key] = tuple(named)
            self.parts[key] = {k: v for k, v in line.items() if k != "files"}


def state_of(artifact: Place) -> State | None:
    """What an artifact's manifest says; None without one. One cut to nothing says nothing."""
    lines, _ = read(artifact)
    if not lines and not path_inside(artifact).exists():
        return None
    state = State()
    for line in lines[1:]:
        state.take(line)
    return state


def read(artifact: Place) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of an artifact's manifest, and their length in bytes."""
    path = path_inside(artifact)
    if not path.exists():
        return [], 0
    advice = f"remove {artifact} and run the stage again"
    if isinstance(path, Address):
        content = path.read() or b""
        lines, length = records.parse_json_lines(content, _LINE, str(path), advice)
    else:
        lines, length = records.read_json_lines(path, _LINE, advice)
    if lines:
        records.check(lines[0], _FIRST, f"{path}, line 1", advice)
    return lines, length


def plain(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(fingerprint)))


def noted(artifact: str | os.PathLike, name: str) -> dict[str, Any] | None:
    """What the manifest of an artifact notes under a name; None for nothing."""
    state = state_of(pathlib.Path(artifact))
    return None if state is None else state.notes.get(name)
