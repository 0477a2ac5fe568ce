"""Replacing an artifact of ours by one that is made anew, because somebody asked for it.

Whoever asks is spared looking for a file, its manifest and its export; whatever this stage
did not make stays. PyTC and BANIS write over what is there without being asked.
"""

import os
import pathlib
import shutil

from absl import logging

from nisbjax.errors import InputError
from nisbjax.store.manifest_lines import path_inside, read
from nisbjax.store.remains import require_own


def advice(stage: str) -> str:
    """What to do about an artifact of ours that other keys made.

    Args:
      stage: `predict` or `decode`, whose flag replaces it and whose key names another.
    """
    return (
        f"add --redo={stage} to replace it, or name another with "
        f"--config.{stage}.output=PATH"
    )


def require_ours(artifact: pathlib.Path, made_of: str) -> None:
    """Refuses to replace what another stage or program made; writes nothing.

    Args:
      artifact: the folder, which may not exist.
      made_of: a key of the manifest's fingerprint that this stage alone writes.

    Raises:
      InputError: a link, a file, a folder without a manifest that holds data, or with that
        of another stage; or its manifest is damaged.
    """
    if artifact.is_symlink():
        raise InputError(
            f"{artifact} is a link, which --redo does not follow; remove it"
        )
    lines, _ = read(artifact)
    if not lines:
        require_own(artifact)
    elif made_of not in lines[0]["fingerprint"]:
        raise InputError(
            f"{artifact} was made by another stage, and --redo replaces only what its own "
            "made; name another output"
        )


def remove(artifact: pathlib.Path, made_of: str) -> None:
    """Removes an artifact whose lock is held, its manifest last, and says so.

    A kill on the way leaves a manifest that misses its files, which nobody believes.

    Raises:
      InputError: as `require_ours`.
    """
    require_ours(artifact, made_of)
    if not artifact.exists():
        return
    logging.info("replacing %s, as --redo asks", artifact)
    manifest = path_inside(artifact)
    for entry in sorted(artifact.iterdir()):
        if entry == manifest:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    manifest.unlink(missing_ok=True)
    os.rmdir(artifact)
