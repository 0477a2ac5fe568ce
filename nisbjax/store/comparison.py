"""The files of an artifact beside what its manifest recorded of them, and phrases on both.

Sizes are compared wherever an artifact is opened; checksums where a writer relies on what
is there (a reader compares each chunk as it reads it, see `verified`).
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from nisbjax.store import stored
from nisbjax.store.stored import Fact, Facts

CHUNK = re.compile(r"\d+(\.\d+)*")
_METADATA = (".zarray", ".zattrs", ".zgroup", "zarr.json", "attributes.json", "info")
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


def metadata_of(artifact: pathlib.Path) -> dict[str, Fact]:
    """The metadata files of the arrays in an artifact: its own, and those of a group's."""
    return {
        path.relative_to(artifact).as_posix(): stored.of_file(path)
        for folder in (
            artifact,
            *sorted(p for p in artifact.glob("[!.]*") if p.is_dir()),
        )
        for path in (folder / name for name in _METADATA)
        if os.path.lexists(path)
    }


def metadata_problems(artifact: pathlib.Path, known: Facts) -> dict[str, str]:
    """A phrase for each metadata file of a finished artifact that is not as it was.

    Attributes may be edited: of them only a file and an object are wanted.

    Args:
      artifact: its folder.
      known: what its last line says of them.
    """
    problems = {}
    for name, fact in known.items():
        found = stored.of_file(artifact / name)
        if found is not None and found[0] >= 0 and name.endswith(".zattrs"):
            with contextlib.suppress(OSError, ValueError):
                if isinstance(json.loads((artifact / name).read_bytes()), dict):
                    continue
            problems[name] = f"file {name} holds no attributes"
            continue
        problem = problem_of(name, fact, found)
        if problem is not None:
            problems[name] = problem
    return problems


def remove(path: pathlib.Path) -> None:
    """Removes whatever is there, a folder with what it holds."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def damage_line(artifact: str | os.PathLike, problem: str) -> str:
    """What to say of a finished artifact with such a problem."""
    return (
        f"{artifact}: {problem}; run the stage that writes it again (--mode=predict, "
        "decode or synth), it makes that part again"
    )
