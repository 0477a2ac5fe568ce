"""The conversion of one volume: any format that is read into any that is written.

Outputs of chunks have a manifest, as predictions and segmentations have, so that one that was
killed goes on, one of another input or other keys is refused, and what is unfinished is not
read. cloud-volume and ome-zarr's tools know neither.
"""

import pathlib
import time

from absl import logging

from nisbjax.convert import arrays, copying, whole_files
from nisbjax.convert.plan import Plan, plan
from nisbjax.store import absent_chunks, lock
from nisbjax.store.manifest import Manifest, require_same
from nisbjax.typing import Section


def run(section: Section, source: str, path: str) -> pathlib.Path:
    """Converts one volume.

    Args:
      section: `convert`.
      source: path of what is read.
      path: of what is written.

    Returns:
      The path of the output, complete.

    Raises:
      InputError: an input that cannot be read, an output that is something else's, or keys
        that mean nothing for it.
    """
    chosen = plan(section, source, path)
    if chosen.format.is_file:
        whole_files.require_ours(chosen)
    else:
        require_same(chosen.path, chosen.made_from)
    began = time.monotonic()
    with lock.writing(chosen.path):
        if chosen.format.is_file:
            written = whole_files.write(chosen)
        else:
            written = _write_chunks(chosen)
    if not written:
        logging.info("%s is there already", chosen.path)
        return chosen.path
    logging.info(
        "wrote %s: %s, %s voxels of %s%s, %.1f s",
        chosen.path,
        chosen.format.title,
        " x ".join(map(str, chosen.levels[0].shape)),
        chosen.dtype,
        f", {len(chosen.levels)} scales" if len(chosen.levels) > 1 else "",
        time.monotonic() - began,
    )
    return chosen.path


def _write_chunks(chosen: Plan) -> bool:
    absent_chunks.say(chosen.source)
    with Manifest(chosen.path, chosen.made_from) as manifest:
        manifest.verify()
        if manifest.finished:
            return False
        arrays.write_group(chosen)
        copying.copy(chosen, manifest)
        manifest.finish()
    return True
