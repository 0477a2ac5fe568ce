"""Whether an artifact is whole: what whoever reads it asks before anything is believed.

PyTC takes a file that is there for one that is finished.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from nisbjax.errors import InputError
from nisbjax.store import software
from nisbjax.store.comparison import Words, metadata_problems, problems_of
from nisbjax.store.manifest_lines import NAME, State, path_inside, read, state_of
from nisbjax.store.places import Address
from nisbjax.store.stored import Fact

# What the fingerprint of one mode alone names: that mode.
_WRITERS = {
    "network": "predict",
    "affinities": "decode",
    "tissue": "synth",
    "input": "convert",
    "kimimaro": "skeletonize",
}


def locate(path: str | os.PathLike) -> tuple[pathlib.Path, str] | None:
    """The artifact of ours that an array belongs to, and where in it the array lies.

    Returns:
      The folder of the artifact, and what its manifest puts before the names of the
      array's files ("", or `img/` in a group); None where neither has a manifest.
    """
    path = pathlib.Path(path)
    for artifact, prefix in ((path, ""), (path.parent, f"{path.name}/")):
        if path_inside(artifact).is_file():
            return artifact, prefix
    return None


def artifact_of(place: Address) -> Address | None:
    """The artifact of ours that an array at an address belongs to; None without a manifest."""
    for artifact in (place, place.parent):
        if path_inside(artifact).exists():
            return artifact
    return None


def is_finished(artifact: str | os.PathLike) -> bool:
    """Whether its manifest says so; nothing else is looked at.

    Raises:
      InputError: its manifest is damaged.
    """
    state = state_of(pathlib.Path(artifact))
    return state is not None and state.finish is not None


def made_from(artifact: str | os.PathLike) -> dict[str, Any]:
    """The fingerprint of a finished artifact; nothing where it is none, or unfinished.

    Raises:
      InputError: its manifest is damaged.
    """
    if not is_finished(artifact):
        return {}
    lines, _ = read(pathlib.Path(artifact))
    return lines[0]["fingerprint"]


def finished_files(
    artifact: str | os.PathLike,
) -> tuple[dict[str, Fact], Mapping[str, Words | Fact]] | None:
    """The files of a finished artifact, and what its arrays' metadata said; None without a
    manifest.

    Raises:
      InputError: its manifest is damaged, or it is unfinished.
    """
    state = state_of(
        artifact if isinstance(artifact, Address) else pathlib.Path(artifact)
    )
    if state is None:
        return None
    if state.finish is None:
        raise InputError(_unfinished_line(artifact, state))
    return state.files, state.metadata


def require_known(folder: str | os.PathLike, attributes: Mapping[str, Any]) -> None:
    """Refuses an array of ours without a manifest: nobody knows whether it is whole.

    Args:
      folder: of the array, for which `locate` finds nothing.
      attributes: of the array, which say whose it is.

    Raises:
      InputError: it says that it is ours.
    """
    ours = software.is_ours(attributes.get("software"))
    there = isinstance(folder, Address) or os.path.isdir(folder)
    if (ours or "made_of" in attributes) and there:
        raise InputError(
            f"{folder} says that nisbjax wrote it and has no {NAME}, so that nobody knows "
            "whether it is whole; remove it and run the stage that writes it again, or copy "
            "it with its hidden files"
        )


def damage_line(path: str | os.PathLike, problem: str) -> str:
    """What to say of a finished artifact, or of an array in it, with such a problem."""
    return f"{path}: {problem}; {_run_again(path)}, it makes that part again"


def _unfinished_line(artifact: str | os.PathLike, state: State) -> str:
    return (
        f"{artifact} is unfinished ({len(state.parts)} parts are written); "
        f"{_run_again(artifact)}, it goes on where it stopped"
    )


def _run_again(path: str | os.PathLike) -> str:
    """The advice to run what wrote an artifact, with its mode where the manifest tells it."""
    if isinstance(path, Address):
        return "copy it there again, or run the stage that writes it"
    located = locate(path)
    lines = read(located[0])[0] if located else []
    made_from = lines[0]["fingerprint"] if lines else {}
    modes = [mode for word, mode in _WRITERS.items() if word in made_from]
    said = f" (--mode={modes[0]})" if modes else ""
    return f"run the stage that writes it again{said}"


def require_finished(artifact: str | os.PathLike) -> None:
    """Refuses an artifact of ours that is not complete, by its manifest and its files.

    Artifacts of other programs have no manifest and pass.

    Raises:
      InputError: the manifest has no finishing line, or a file that it names is missing or
        of another size.
    """
    located = locate(artifact)
    state = state_of(located[0]) if located else None
    if located is None or state is None:
        return
    if state.finish is None:
        raise InputError(_unfinished_line(artifact, state))
    folder, prefix = located
    for problem in metadata_problems(folder, state.metadata).values():
        raise InputError(damage_line(folder, problem))
    names = [name for name in state.files if name.startswith(prefix)]
    for problem in problems_of(folder, state.files, names, contents=False).values():
        raise InputError(damage_line(folder, problem))
