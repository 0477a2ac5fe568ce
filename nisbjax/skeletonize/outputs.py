"""The files of skeletons that a stage writes, and whose they are.

`skeleton.pkl`, an npz beside it, and the formats that were asked for; a hidden folder holds
the record that they are ours, and boxes until they are joined. Whatever else lies there stays.
"""

import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from nisbjax.errors import InputError
from nisbjax.skeletons import Skeletons, flat_file, nisb_file, precomputed, swc
from nisbjax.store import manifest_lines, stored
from nisbjax.store.manifest import require_equal
from nisbjax.typing import FloatTriple

ALSO = ("swc", "precomputed")


def parts_folder(output: pathlib.Path) -> pathlib.Path:
    """Where the record of an output lies, and boxes until they are joined."""
    return output.with_name(f".{output.stem}.boxes")


def paths(output: pathlib.Path, also: Sequence[str] = ALSO) -> dict[str, pathlib.Path]:
    """Format -> path of what is written: `skeleton.pkl`, the npz, and those of `also`."""
    found = {"pkl": output, "npz": output.with_suffix(".npz")}
    return found | {word: output.with_name(f"{output.stem}_{word}") for word in also}


def require_ours(
    output: pathlib.Path, also: Sequence[str], made_from: Mapping[str, Any]
) -> None:
    """Refuses outputs that something else made; the others of ours go with `skeleton.pkl`.

    Args:
      output: path of `skeleton.pkl`.
      also: of `ALSO`.
      made_from: what determines what is to be made.

    Raises:
      InputError: naming the file and what differs.
    """
    folder = parts_folder(output)
    state = manifest_lines.state_of(folder)
    for word, path in paths(output, also).items():
        if not os.path.lexists(path):
            continue
        if state is None or not (word in state.parts or word in state.notes):
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
        if word == "pkl":
            lines, _ = manifest_lines.read(folder)
            require_equal(path, lines[0]["fingerprint"], made_from)


def remove_others(output: pathlib.Path, made_from: Mapping[str, Any]) -> None:
    """Removes what other keys or labels made, whose `skeleton.pkl` is not there."""
    folder = parts_folder(output)
    lines, _ = manifest_lines.read(folder)
    if not lines or lines[0]["fingerprint"] == manifest_lines.plain(made_from):
        return
    logging.info("%s holds boxes of another attempt; they are removed", folder)
    state = manifest_lines.state_of(folder) or manifest_lines.State()
    for word, path in paths(output).items():
        if word in state.parts or word in state.notes:
            remove(path)
    shutil.rmtree(folder)


def remove(path: pathlib.Path) -> None:
    """Removes a file, or a folder with all in it; nothing is no error."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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


def facts(path: pathlib.Path, folder: pathlib.Path) -> dict[str, stored.Fact]:
    """Sizes and checksums of a file, or of a folder's files, by their names from the record."""
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    return {os.path.relpath(each, folder): stored.of_file(each) for each in found}
