"""The files of an artifact beside what its manifest recorded of them, and phrases on both.

Sizes are compared wherever an artifact is opened; checksums where a writer relies on what
is there (a reader compares each chunk as it reads it, see `verified`).
"""

import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nisbjax.store import files, stored
from nisbjax.store.places import Address, Place
from nisbjax.store.stored import Fact, Facts

CHUNK = re.compile(r"\d+(\.\d+)*")
_METADATA = (".zarray", ".zattrs", ".zgroup", "zarr.json", "attributes.json", "info")
_OF_N5 = (
    "dimensions",
    "blockSize",
    "dataType",
    "compression",
)  # all else are attributes
Words = Mapping[str, Any]  # of a JSON object
_THREADS = 4  # reading and comparing files


def problem_of(name: str, wanted: Fact, found: Fact) -> str | None:
    """A phrase on a chunk file that is not as recorded; None for one that is."""
    if found == wanted:
        return None
    if found == stored.NO_FILE or (found is not None and found[0] < 0):
        return f"{name} is no file, but a folder, a pipe or the like"
    kind = "chunk" if CHUNK.fullmatch(name.rpartition("/")[2]) else "file"
    if wanted is None:
        return f"{kind} {name} is damaged (it was never written, and a file is there)"
    if found is None:
        return f"{kind} {name} is missing"
    if found[0] != wanted[0]:
        return f"{kind} {name} is damaged ({found[0]} bytes; it had {wanted[0]})"
    return f"{kind} {name} is damaged (its checksum is {found[1]:08x}, not {wanted[1]:08x})"


def problems_of(
    folder: pathlib.Path, known: Facts, names: Iterable[str], *, contents: bool
) -> dict[str, str]:
    """A phrase for each of some files that is not as known."""

    def look(name: str) -> tuple[str, str | None]:
        wanted = known[name]
        if contents:
            return name, problem_of(name, wanted, stored.of_file(folder / name))
        size = stored.size_of(folder / name)
        found = None if size is None else (size, wanted[1] if wanted else 0)
        return name, problem_of(name, wanted, found)

    if not contents:
        return {name: text for name, text in map(look, names) if text}
    with ThreadPoolExecutor(_THREADS) as pool:
        return {name: text for name, text in pool.map(look, names) if text}


def metadata_of(artifact: pathlib.Path) -> dict[str, Words | Fact]:
    """The metadata files of the arrays in an artifact: its own, and those of a group's.

    Returns:
      What each says of how voxels are stored, without attributes; of one that holds no JSON
      object its size and checksum.
    """
    found: dict[str, Words | Fact] = {}
    for folder in (
        artifact,
        *sorted(p for p in artifact.glob("[!.]*") if p.is_dir()),
    ):
        for path in (folder / name for name in _METADATA):
            if os.path.lexists(path):
                words = _object_in(path)
                name = path.relative_to(artifact).as_posix()
                found[name] = (
                    stored.of_file(path) if words is None else _of_storage(name, words)
                )
    return found


def metadata_problems(
    artifact: Place, known: Mapping[str, Words | Fact]
) -> dict[str, str]:
    """A phrase for each metadata file of a finished artifact that does not say what it said.

    Attributes may be edited, and words added to all others: people name meshes, skeletons
    and colours there. Of attributes only a file and an object are wanted.

    Args:
      artifact: its folder.
      known: what its last line says of them (`metadata_of`).
    """
    problems = {}
    for name, wanted in known.items():
        found = _fact_of(artifact / name)
        size = (0, 0) if isinstance(wanted, Mapping) else wanted
        if found is None or found[0] < 0:
            problem = problem_of(name, size, found)
        elif isinstance(wanted, Mapping) or name.endswith(".zattrs"):
            said = wanted if isinstance(wanted, Mapping) else {}
            problem = _problem_of_words(name, said, _object_in(artifact / name))
        else:
            problem = problem_of(name, wanted, found)
        if problem is not None:
            problems[name] = problem
    return problems


def mend_metadata(artifact: pathlib.Path, name: str, known: Words | Fact) -> None:
    """Writes what a metadata file said into what it says; one that says nothing goes.

    Args:
      artifact: its folder.
      name: of the file.
      known: what `metadata_of` found of it.
    """
    path = artifact / name
    found = _object_in(path)
    if found is None or not isinstance(known, Mapping):
        remove(path)
    else:
        files.write_json(path, with_words(found, known))


def with_words(found: Words, own: Words) -> dict[str, Any]:
    """Words of ours in what a file says by now, whose other words stay."""
    both = dict(found)
    for key, value in own.items():
        both[key] = _with_value(both.get(key), value)
    return both


def _with_value(found: Any, own: Any) -> Any:
    if isinstance(own, Mapping) and isinstance(found, Mapping):
        return with_words(found, own)
    if _are_objects(own) and _are_objects(found) and len(found) >= len(own):
        mended = [with_words(a, b) for a, b in zip(found, own, strict=False)]
        return mended + list(found[len(own) :])
    return own


def _problem_of_words(name: str, wanted: Words, found: Words | None) -> str | None:
    if found is None:
        kind = "attributes" if name.endswith(".zattrs") else "JSON object"
        return f"file {name} holds no {kind}"
    other = _differing(found, wanted)
    return f"file {name} is damaged ({other} is not as it was)" if other else None


def _differing(found: Words, wanted: Words) -> str:
    """The first of some words that are missing or others, as `a.b`; "" for none."""
    for key, value in wanted.items():
        if key not in found:
            return key
        there = found[key]
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            pairs = [(there, value)]
        elif _are_objects(value) and _are_objects(there) and len(there) >= len(value):
            pairs = zip(there, value, strict=False)  # more scales, of another program
        elif there != value:
            return key
        else:
            continue
        for a, b in pairs:
            below = _differing(a, b)
            if below:
                return f"{key}.{below}"
    return ""


def _are_objects(value: Any) -> bool:
    """Whether it is a list of JSON objects: scales, codecs."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, Mapping) for each in value)
    )


def _fact_of(path: Place) -> Fact:
    if isinstance(path, Address):
        content = path.read()
        return None if content is None else stored.of_bytes(content)
    return stored.of_file(path)


def _object_in(path: Place) -> dict[str, Any] | None:
    """The JSON object in a metadata file; None where there is none."""
    fact = _fact_of(path)
    if fact is None or fact[0] < 0:
        return None
    try:
        at_address = isinstance(path, Address)
        found = json.loads((path.read() or b"") if at_address else path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _of_storage(name: str, words: Words) -> dict[str, Any]:
    """The words of a metadata file that say how voxels are stored; none of attributes."""
    kind = name.rpartition("/")[2]
    if kind == ".zattrs":
        return {}
    if kind == "attributes.json":
        return {key: value for key, value in words.items() if key in _OF_N5}
    return {key: value for key, value in words.items() if key != "attributes"}


def remove(path: pathlib.Path) -> None:
    """Removes whatever is there, a folder with what it holds."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
