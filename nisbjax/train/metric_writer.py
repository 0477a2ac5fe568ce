"""Scalars of a run: TensorBoard event files and one JSON line for each logged step.

A resumed run drops what was written behind its first step, so that no curve runs twice
over the same steps (Lightning appends a second event file and leaves the overlap).
"""

import json
import os
import pathlib
from collections.abc import Mapping

from tensorboardX import SummaryWriter


class MetricWriter:
    """Writes `{tag: value}` at steps; `first_step` is where this start goes on."""

    def __init__(self, logs: pathlib.Path, history: pathlib.Path, first_step: int):
        logs.mkdir(parents=True, exist_ok=True)
        self._history = history
        _purge(history, first_step)
        self._events = SummaryWriter(str(logs), purge_step=first_step)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        for tag, value in scalars.items():
            self._events.add_scalar(tag, value, step)
        with open(self._history, "a") as file:
            file.write(json.dumps({"step": step, **scalars}) + "\n")

    def close(self) -> None:
        self._events.close()


def read_history(history: pathlib.Path) -> list[dict[str, float]]:
    """The logged steps of a run, in the order they were written."""
    if not history.exists():
        return []
    return [json.loads(line) for line in history.read_text().splitlines() if line]


def _purge(history: pathlib.Path, first_step: int) -> None:
    lines = []
    for line in history.read_text().splitlines() if history.exists() else []:
        try:
            if json.loads(line)["step"] <= first_step:
                lines.append(line)
        except ValueError:  # the torn last line of a killed run
            continue
    temporary = history.with_name(history.name + ".partial")
    temporary.write_text("".join(line + "\n" for line in lines))
    os.replace(temporary, history)
