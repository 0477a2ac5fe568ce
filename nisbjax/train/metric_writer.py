"""Scalars and pictures of a run: TensorBoard events, and a JSON line for each logged step.

A resumed run drops what was written behind its first step, so that no curve runs twice
over the same steps (Lightning appends a second event file and leaves the overlap).
"""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import UInt8
from tensorboardX import SummaryWriter


class MetricWriter:
    """Writes `{tag: value}` at steps; `first_step` is where this start goes on."""

    def __init__(self, logs: pathlib.Path, history: pathlib.Path, first_step: int):
        logs.mkdir(parents=True, exist_ok=True)
        self._history = history
        _purge(history, first_step)
        # TensorBoard drops what stands at the purge step itself, too.
        self._events = SummaryWriter(
            str(logs), purge_step=first_step + 1, filename_suffix=f".{first_step:08d}"
        )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        for tag, value in scalars.items():
            self._events.add_scalar(tag, value, step)
        with open(self._history, "a") as file:
            file.write(json.dumps({"step": step, **scalars}) + "\n")

    def write_picture(
        self, step: int, tag: str, picture: UInt8[np.ndarray, "h w 3"]
    ) -> None:
        self._events.add_image(tag, picture, step, dataformats="HWC")

    def flush(self) -> None:
        """Returns when everything written is on disk."""
        self._events.flush()

    def close(self) -> None:
        self._events.close()


class Unwritten(MetricWriter):
    """The writer of all processes but the first, which writes for them."""

    def __init__(self):
        pass

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        pass

    def write_picture(
        self, step: int, tag: str, picture: UInt8[np.ndarray, "h w 3"]
    ) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def read_history(history: pathlib.Path) -> list[dict[str, int | float]]:
    """The logged steps of a run, in the order they were written."""
    return [values for _, values in _lines(history)]


def _lines(history: pathlib.Path) -> Iterator[tuple[str, dict[str, int | float]]]:
    for line in history.read_text().splitlines() if history.exists() else []:
        try:
            yield line, json.loads(line)
        except ValueError:  # the torn last line of a killed run
            continue


def _purge(history: pathlib.Path, first_step: int) -> None:
    kept = [line for line, values in _lines(history) if values["step"] <= first_step]
    temporary = history.with_name(history.name + ".partial")
    temporary.write_text("".join(line + "\n" for line in kept))
    os.replace(temporary, history)
