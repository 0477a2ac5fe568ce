"""What lies where an artifact is to be written: another's data, or remains of a removed one."""

import os
import pathlib
import shutil

from absl import logging

from nisbjax.errors import InputError
from nisbjax.store.comparison import CHUNK
from nisbjax.store.manifest_lines import NAME

METADATA = (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")


def _contents(artifact: pathlib.Path) -> tuple[bool, bool, bool]:
    """Whether a folder holds metadata of arrays, chunks, and other files."""
    metadata = chunks = others = False
    for folder, below, names in os.walk(artifact):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            if name in METADATA:
                metadata = True
            elif CHUNK.fullmatch(name):
                chunks = True
            elif not name.startswith("."):
                others = True
        if others or (metadata and chunks):
            break
    return metadata, chunks, others


def require_own(artifact: pathlib.Path) -> None:
    """Refuses what lies in the way and has no manifest, unless it holds no data."""
    if artifact.exists() and not artifact.is_dir():
        raise InputError(
            f"{artifact} is a file, and a folder is to be written there; remove it or "
            "name another output"
        )
    metadata, chunks, others = _contents(artifact)
    if others or (metadata and chunks):
        raise InputError(
            f"{artifact} was not written by this stage: it has no {NAME}; remove it or "
            "name another output"
        )


def remove_remains(artifact: pathlib.Path) -> None:
    """Removes chunks without an array: those that were being written as it was removed."""
    metadata, chunks, others = _contents(artifact)
    if others or metadata or not chunks:
        return
    logging.warning(
        "%s holds chunks without an array, the remains of one that was removed while it "
        "was written; they are removed too",
        artifact,
    )
    shutil.rmtree(artifact, ignore_errors=True)
    artifact.mkdir(parents=True, exist_ok=True)
