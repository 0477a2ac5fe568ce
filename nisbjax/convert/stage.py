"""The conversion of one volume: any format that is read into any that is written.

Outputs of chunks have a manifest, as predictions and segmentations have, so that one that was
killed goes on, one of another input or other keys is refused, and what is unfinished is not
read. cloud-volume and ome-zarr's tools know neither.
"""

import shutil
import time

from absl import logging

from nisbjax.convert import arrays, copying, whole_files
from nisbjax.convert.plan import Plan, plan
from nisbjax.convert.sending import Sending
from nisbjax.errors import InputError
from nisbjax.store import absent_chunks, lock
from nisbjax.store.manifest import Manifest, require_same
from nisbjax.store.places import Place
from nisbjax.typing import Section


def run(section: Section, source: str, path: str, records: str = ".") -> Place:
    """Converts one volume.

    Args:
      section: `convert`.
      source: path of what is read.
      path: of what is written.
      records: the folder for what lies here of an output at an address; see `sending`.

    Returns:
      The path or address of the output, complete.

    Raises:
      InputError: an input that cannot be read, an output that is something else's, or keys
        that mean nothing for it.
    """
    chosen = plan(section, source, path, records)
    sent = Sending(chosen.sent_to, chosen.path) if chosen.sent_to else None
    if chosen.format.is_file:
        whole_files.require_ours(chosen)
    else:
        require_same(chosen.path, chosen.made_from)
    began = time.monotonic()
    if sent is not None and sent.is_there(chosen.made_from):
        written = False
    else:
        with lock.writing(chosen.path):
            if chosen.format.is_file:
                written = whole_files.write(chosen)
            else:
                written = _write_or_remove(chosen, sent)
    if sent is not None:
        sent.remove_empty(records)
    if not written:
        logging.info("%s is there already", chosen.output)
        return chosen.output
    logging.info(
        "wrote %s: %s, %s voxels of %s%s, %.1f s",
        chosen.output,
        chosen.format.title,
        " x ".join(map(str, chosen.levels[0].shape)),
        chosen.dtype,
        f", {len(chosen.levels)} scales" if len(chosen.levels) > 1 else "",
        time.monotonic() - began,
    )
    return chosen.output


def _write_or_remove(chosen: Plan, sent: Sending | None) -> bool:
    """An output whose type cannot hold the labels is of no use, and in the way of another."""
    try:
        return _write_chunks(chosen, sent)
    except copying.UnfitLabelError as problem:
        if sent is not None:
            raise InputError(
                f"{problem}; remove {chosen.output} and {chosen.path} first"
            ) from None
        shutil.rmtree(chosen.path)
        raise InputError(
            f"{problem}; what was written of {chosen.path} is removed"
        ) from None


def _write_chunks(chosen: Plan, sent: Sending | None) -> bool:
    absent_chunks.say(chosen.source)
    moved = sent is not None
    with Manifest(chosen.path, chosen.made_from, moved=moved) as manifest:
        manifest.verify()
        if sent is not None:
            sent.forget_lost(manifest)
        elif manifest.finished:
            return False
        if not manifest.finished:
            arrays.write_group(chosen)
            copying.copy(chosen, manifest, sent)
            manifest.finish()
        if sent is not None:
            sent.finish()
    return True
