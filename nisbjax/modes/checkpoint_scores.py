"""The scores of a run's checkpoints so far: `nerl.json`, `nerl.csv` and curves of them.

The JSON file is what counts, and the curves are drawn again from it at every start, so that
a kill leaves neither gaps nor doubles. BANIS logs each score as it comes.
"""

import csv
import io
import json
import pathlib
import shutil
from typing import Any

from absl import logging

from nisbjax.artifacts import ValidationDir
from nisbjax.keys import determines
from nisbjax.modes import tuning
from nisbjax.modes.volumes import split_of, within_box
from nisbjax.store import files, records
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.schema import list_of, table_of, whole
from nisbjax.train.metric_writer import EventFile
from nisbjax.typing import Config

_DETERMINED = ("prediction", "report", "segmentation", "study", "best")
_REGION = "region"  # that is predicted; "" for the whole volume
Row = dict[str, Any]
_SCORES = {"made_from": table_of(), "checkpoints": list_of({"step": whole()})}


class CheckpointScores:
    """One row for each checkpoint that was scored.

    Attributes:
      failures: steps of checkpoints that are damaged; they are not tried again.
      unsealed: steps of checkpoints that training has yet to seal, as the log says.

    Args:
      config: says what the scores are made from; scores of other keys are refused.
      place: of the files.
      logs: folder of the event file.

    Raises:
      InputError: the files that are there cannot be read, or are made from other keys;
        or as `within_box`.
    """

    def __init__(self, config: Config, place: ValidationDir, logs: pathlib.Path):
        from nisbjax.infer import compute_dtype  # loads JAX
        from nisbjax.tune import objective

        self._place = place
        self.failures: set[int] = set()
        self.unsealed: set[int] = set()
        config = within_box(config, "val")
        split = split_of(config, "val")
        self._made_from = {
            **determines.facts(config, *_DETERMINED),
            "predict.precision": compute_dtype.settled(
                config.predict.precision,
                config.predict.activation,
                config.predict.scale,
            ),
            "decode.affinity_mask": config.decode.affinity_mask,
            "image": fingerprint(split.image),
            # The word that auto becomes, so that scores of before there was one go on.
            "tune.objective": objective.settled(config.tune.objective, split.skeleton),
            **tuning.truth_of(config, split).facts(),
        }
        # Of the key or of the volume's box; a key of its own tells it from files of before.
        self._made_from[_REGION] = self._made_from.pop("predict.roi")
        self._rows: dict[int, Row] = {}
        if place.json.exists():
            content = records.read_json(
                place.json, _SCORES, f"move {place.path} away to score again"
            )
            determines.require_equal(
                self._with_region(content["made_from"]),
                self._made_from,
                str(place.json),
                f"move {place.path} away to score again",
            )
            self._rows = {row["step"]: row for row in content["checkpoints"]}
        # Written again from the table: a kill leaves neither gaps nor doubles.
        shutil.rmtree(logs, ignore_errors=True)
        self._events = EventFile(logs)
        for row in self.sorted():
            self._draw(row)

    def _with_region(self, found: dict[str, Any]) -> dict[str, Any]:
        """Facts of a file; of one that does not say its region, as if it were this one.

        Files of before have the key `predict.roi`, which a box of the volume did not reach.
        """
        if _REGION in found:
            return found
        found = dict(found)
        region, now = found.pop("predict.roi", ""), self._made_from[_REGION]
        if not region:
            logging.warning(
                "%s does not say which region its scores are of; taken as %s; if they are "
                "of another, move %s away to score again",
                self._place.json,
                now or "the whole volume",
                self._place.path,
            )
        return found | {_REGION: region or now}

    def has(self, step: int) -> bool:
        return step in self._rows

    def sorted(self) -> list[Row]:
        return [self._rows[step] for step in sorted(self._rows)]

    def add(self, row: Row) -> None:
        """Notes a score; durable when this returns."""
        self._rows[row["step"]] = row
        content = {"made_from": self._made_from, "checkpoints": self.sorted()}
        table = io.StringIO()
        columns = dict.fromkeys(name for each in self.sorted() for name in each)
        writer = csv.DictWriter(table, list(columns))
        writer.writeheader()
        writer.writerows(self.sorted())
        files.write_text(self._place.csv, table.getvalue())
        files.write_text(self._place.json, json.dumps(content, indent=1) + "\n")
        self._draw(row)

    def _draw(self, row: Row) -> None:
        for name, value in row.items():
            if isinstance(value, int | float) and name != "step":
                self._events.add_scalar(f"validate/{name}", float(value), row["step"])
        self._events.flush()

    def close(self) -> None:
        self._events.close()
