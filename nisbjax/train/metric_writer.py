"""Scalars and pictures of a run: TensorBoard events, and a JSON line for each logged step.

A resumed run drops what was written behind its first step, so that no curve runs twice
over the same steps (Lightning appends a second event file and leaves the overlap).
"""

import contextlib
import json
import pathlib
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

from nisbjax.errors import InputError
from nisbjax.store import files

_PROTO: Any = event_pb2  # made when it is imported, so that its names are not known
Event, SessionLog = _PROTO.Event, _PROTO.SessionLog


class EventFile:
    """A new file of TensorBoard events in a folder, written by whoever calls.

    tensorboardX's own writer hands events to a thread, which dies of a full disk with a
    traceback while the caller goes on unawares.

    Args:
      folder: of the run's events; made where it is not there.
      purge_step: TensorBoard drops what earlier files hold from this step on.
      suffix: of the file's name.

    Raises:
      InputError: here and in all methods: it cannot be written.
    """

    def __init__(
        self, folder: pathlib.Path, purge_step: int | None = None, suffix: str = ""
    ):
        self._folder = folder
        self._failed = False
        with self._reported():
            folder.mkdir(parents=True, exist_ok=True)
            second, host = int(time.time()), socket.gethostname()
            name = f"events.out.tfevents.{second}.{host}{suffix}"
            self._records = RecordWriter(str(folder / name))
        self._write(Event(file_version="brain.Event:2"))
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._write(Event(step=purge_step, session_log=start))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self._write(Event(step=step, summary=summary.scalar(tag, value)))

    def add_image(
        self, tag: str, picture: UInt8[np.ndarray, "h w 3"], step: int
    ) -> None:
        content = summary.image(tag, picture, dataformats="HWC")
        self._write(Event(step=step, summary=content))

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        with self._reported():
            self._records.write(event.SerializeToString())

    def flush(self) -> None:
        """Returns when everything added is on disk."""
        with self._reported():
            self._records.flush()

    def close(self) -> None:
        """Flushes and closes; after a failure, which was reported, it only closes."""
        try:
            if not self._failed:
                self.flush()
        finally:
            with contextlib.suppress(OSError):  # reported already
                self._records.close()

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failed = True
            raise unwritten(self._folder, error) from error


def unwritten(path: pathlib.Path, error: OSError) -> InputError:
    """The file system's refusal to take what a run logs."""
    return InputError(
        f"{path} could not be written ({error.strerror}); free space or give access "
        "there, and start the same command again"
    )


class MetricWriter:
    """Writes `{tag: value}` at steps; `first_step` is where this start resumes.

    Raises:
      InputError: here and in all methods: a file cannot be written.
    """

    def __init__(self, logs: pathlib.Path, history: pathlib.Path, first_step: int):
        self._history = history
        try:
            logs.mkdir(parents=True, exist_ok=True)
            _purge(history, first_step)
        except OSError as error:
            raise unwritten(history, error) from error
        # TensorBoard drops what stands at the purge step itself, too.
        self._events = EventFile(logs, first_step + 1, f".{first_step:08d}")

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        for tag, value in scalars.items():
            self._events.add_scalar(tag, value, step)
        try:
            with open(self._history, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **scalars}) + "\n")
        except OSError as error:
            raise unwritten(self._history, error) from error

    def write_picture(
        self, step: int, tag: str, picture: UInt8[np.ndarray, "h w 3"]
    ) -> None:
        self._events.add_image(tag, picture, step)

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
    """Each line that is whole, and its values; a kill or a full disk tears the last one."""
    if not history.exists():
        return
    files.require_regular(history)
    for line in history.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            values = json.loads(line)
            if isinstance(values, dict) and type(values.get("step")) is int:
                yield line, values


def _purge(history: pathlib.Path, first_step: int) -> None:
    kept = [line for line, values in _lines(history) if values["step"] <= first_step]
    files.write_text(history, "".join(line + "\n" for line in kept))
