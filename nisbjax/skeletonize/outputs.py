"""The files of skeletons that a stage writes, and whose they are.

`skeleton.pkl`, an npz beside it, and the formats that were asked for; a hidden folder holds
the record that they are ours, and boxes until they are joined. Whatever else lies there stays.
"""

import os
import pathlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from nisbjax.errors import InputError
from nisbjax.skeletons import Skeletons, flat_file, nisb_file, precomputed, swc
from nisbjax.store import files, manifest_lines, stored
from nisbjax.store.manifest import require_equal
from nisbjax.typing import FloatTriple

ALSO = ("swc", "precomputed")
_ADVICE = (
    "add --redo=skeletonize to replace it, or name another --config.skeletonize.output"
)


def parts_folder(output: pathlib.Path) -> pathlib.Path:
    """Where the record of an output lies, and boxes until they are joined."""
    return output.with_name(f".{output.stem}.boxes")


def paths(output: pathlib.Path, also: Sequence[str] = ALSO) -> dict[str, pathlib.Path]:
    """Format -> path of what is written: `skeleton.pkl`, the npz, and those of `also`."""
    found = {"pkl": output, "npz": output.with_suffix(".npz")}
    return found | {word: output.with_name(f"{output.stem}_{word}") for word in also}


def recorded(output: pathlib.Path) -> dict[str, pathlib.Path]:
    """Those of `paths` that are there and that the record says are ours."""
    state = manifest_lines.state_of(parts_folder(output))
    return {
        word: path
        for word, path in paths(output).items()
        if state is not None
        and (word in state.parts or word in state.notes)
        and os.path.lexists(path)
    }


def require_ours(
    output: pathlib.Path,
    also: Sequence[str],
    made_from: Mapping[str, Any],
    *,
    redo: bool = False,
) -> None:
    """Refuses outputs that something else made; the others of ours go with `skeleton.pkl`.

    Args:
      output: path of `skeleton.pkl`.
      also: of `ALSO`.
      made_from: what determines what is to be made.
      redo: what is ours is replaced, in whatever format, whatever it was made of.

    Raises:
      InputError: naming the file and what differs.
    """
    folder = parts_folder(output)
    state = manifest_lines.state_of(folder)
    ours = recorded(output)
    for word, path in (paths(output, also) | (ours if redo else {})).items():
        if not os.path.lexists(path):
            continue
        if state is None or word not in ours:
            raise InputError(
                f"{path} is there, and --mode=skeletonize did not make it; remove it, or "
                "name another --config.skeletonize.output"
            )
        for name in state.names.get(word, ()):
            found = stored.of_file(folder / name)
            if found is not None and found != state.files[name]:
                raise InputError(
                    f"{path} was changed since --mode=skeletonize made it; move it away, or "
                    "name another --config.skeletonize.output"
                )
        if word == "pkl" and not redo:
            lines, _ = manifest_lines.read(folder)
            require_equal(path, lines[0]["fingerprint"], made_from, _ADVICE)


def remove_others(
    output: pathlib.Path, made_from: Mapping[str, Any], *, redo: bool = False
) -> list[str]:
    """Removes what other keys or labels made, whose `skeleton.pkl` is not there.

    With `redo` also what these made, and `skeleton.pkl`.

    Returns:
      Words of `paths` whose folder, made by us, stays for what others put in it.
    """
    folder = parts_folder(output)
    lines, _ = manifest_lines.read(folder)
    if not lines:
        return []
    if redo:
        logging.info("replacing %s, as --redo asks", output)
    elif lines[0]["fingerprint"] == manifest_lines.plain(made_from):
        return []
    else:
        logging.info("%s holds boxes of another attempt; they are removed", folder)
    state = manifest_lines.state_of(folder) or manifest_lines.State()
    stay = []
    for word, path in paths(output).items():
        if word in state.parts or word in state.notes:
            noted = state.notes.get(word, {}).get("names", ())
            _remove(path, folder, {*noted, *state.names.get(word, ())})
            if path.is_dir():
                stay.append(word)
    shutil.rmtree(folder)
    return stay


def _remove(path: pathlib.Path, folder: pathlib.Path, names: Iterable[str]) -> None:
    """Removes files by their names from the record; their folder if nothing else is in it."""
    ours = [folder / name for name in names]
    for file in ours:
        file.unlink(missing_ok=True)
    for file in ours:  # afterwards, as each looks through all that is left
        files.sweep(file)
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()


def names(
    skeletons: Skeletons, word: str, path: pathlib.Path, folder: pathlib.Path
) -> list[str]:
    """The files that `write` makes, by their names from the record in a folder."""
    made = [path]
    if word == "swc":
        made = [path / f"{one}.swc" for one in np.unique(skeletons.node_id)]
    elif word == "precomputed":
        made = [path / str(one) for one in np.unique(skeletons.node_id)]
        made.append(path / precomputed.INFO)
    return [os.path.relpath(each, folder) for each in made]


def write(
    skeletons: Skeletons, word: str, path: pathlib.Path, voxel_size_nm: FloatTriple
) -> None:
    """Writes skeletons in the format of a word of `paths`."""
    if word == "pkl":
        nisb_file.write(skeletons, path)
    elif word == "npz":
        flat_file.write(skeletons, path)
    elif word == "swc":
        swc.write(skeletons, path)
    else:
        precomputed.write(skeletons, path, voxel_size_nm)


def facts(names: Iterable[str], folder: pathlib.Path) -> dict[str, stored.Fact]:
    """Sizes and checksums of files, by their names from the record in a folder."""
    return {name: stored.of_file(folder / name) for name in names}
