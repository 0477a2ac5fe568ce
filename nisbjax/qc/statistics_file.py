"""Statistics on disk, one npz: of a slab while predicting, and of a whole prediction.

A file says which prediction and which border it is of; what says otherwise, or cannot be
read, is not used, and QC scans again. PyTC keeps none.
"""

import dataclasses
import json
import os
import zipfile
from typing import Any

import numpy as np
from absl import logging

from nisbjax.qc.border import Border, BorderSamples, ValueCounts
from nisbjax.qc.statistics import PlaneSums, Statistics
from nisbjax.store import files, npy, records
from nisbjax.store.schema import anything, list_of, text, whole

_FACTS = {
    "made_from": text(),
    "shape": list_of(whole(), 3),
    "picture_start": list_of(anything()),
}


def save(statistics: Statistics, path: str | os.PathLike, made_from: str) -> None:
    """Writes statistics as one npz, renamed into place.

    Args:
      statistics: of a whole prediction or of a part.
      path: of the file.
      made_from: says which prediction; `load` compares it.
    """
    arrays: dict[str, Any] = dataclasses.asdict(statistics.planes)
    arrays["pictures"] = statistics.pictures
    facts: dict[str, Any] = {"made_from": made_from, "shape": statistics.shape}
    facts["picture_start"] = statistics.picture_start
    border, samples = statistics.border, statistics.samples
    if border is not None and samples is not None:
        facts |= {"z": border.z, "width": border.width, "thresh": border.thresh}
        arrays |= {
            "inside_total": samples.inside_total,
            "inside_count": samples.inside_count,
        }
        for row in range(len(border.z)):
            for c in range(samples.inside_total.shape[1]):
                ring = samples.ring[row][c].settle()
                arrays[f"ring_{row}_{c}"] = ring.values
                arrays[f"ring_counts_{row}_{c}"] = ring.counts
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, facts=np.array(json.dumps(facts)), **arrays)


def load(path: str | os.PathLike, made_from: str) -> Statistics | None:
    """Statistics of exactly this prediction; None if there are none (any more)."""
    if not os.path.lexists(path):
        return None
    try:
        return _load(path, made_from)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logging.warning("%s is damaged (%s); it is not used", path, error)
        return None


def _load(path: str | os.PathLike, made_from: str) -> Statistics | None:
    path = files.require_regular(path)  # a pipe would be waited for
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no npz")
    with open(path, "rb") as opened, npy.Archive(opened) as file:
        facts = records.parse_json(str(file["facts"]), _FACTS, "its facts")
        if facts["made_from"] != made_from:
            return None
        names = [field.name for field in dataclasses.fields(PlaneSums)]
        planes = PlaneSums(**{name: file[name] for name in names})
        shape = tuple(facts["shape"])
        found = Statistics(
            shape, planes, file["pictures"], tuple(facts["picture_start"])
        )
        if "z" not in facts:
            return found
        rows, channels = file["inside_total"].shape
        ring = [
            [
                ValueCounts(file[f"ring_{r}_{c}"], file[f"ring_counts_{r}_{c}"])
                for c in range(channels)
            ]
            for r in range(rows)
        ]
        found.samples = BorderSamples(ring, file["inside_total"], file["inside_count"])
    none = np.zeros((rows, 0, 0), np.uint8)  # the samples are taken already
    found.border = Border(
        tuple(facts["z"]), facts["width"], facts["thresh"], none, shape
    )
    return found
