"""A study in a journal, a file of JSON lines to which several hosts append.

Optuna's `JournalStorage`; where it stops for ever at a line that a full disk or a dying host
cut short, that line, which nobody was told of, is taken away here.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from absl import logging
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

from nisbjax.errors import InputError
from nisbjax.tune.database import MADE_FROM
from nisbjax.tune.journal_lock import JournalLock

_LONGEST_LINE = 1 << 24  # bytes; an entry has some hundreds


def open_journal(path: Path, name: str, made_from: Mapping[str, Any]) -> JournalStorage:
    """Opens a journal, or makes it with one study in it.

    Args:
      path: of the file.
      name: of the study, where the journal is new.
      made_from: what its trials score, where the journal is new.

    Raises:
      InputError: a line that is no entry of a journal, or the file cannot be written.
    """
    if path.exists() and _is_torn(path):
        _cut(path)
    backend = _File(path)
    if not path.stat().st_size:
        # In one write, so that a study says what it scores. Where two hosts do it at the
        # same time, the second study of the name has no effect.
        entries = _Kept()
        storage = JournalStorage(entries)
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize"
        )
        study.set_user_attr(MADE_FROM, dict(made_from))
        backend.append_logs(entries.logs)
    return _storage(backend)


def existing_journal(path: Path) -> JournalStorage:
    """Opens a journal that is there to look at it; a torn last line stays.

    Raises:
      InputError: as `open_journal`.
    """
    _is_torn(path)
    return _storage(_File(path))


def _storage(backend: JournalFileBackend) -> JournalStorage:
    try:
        return JournalStorage(backend)
    except (TypeError, AttributeError, IndexError, LookupError) as error:
        raise ValueError(f"an entry cannot be applied: {error}") from None


class _File(JournalFileBackend):
    """Says in one line why the file system refuses, and leaves no half entry."""

    def __init__(self, path: Path):
        self._path = path
        try:
            super().__init__(str(path), JournalLock(path))
        except OSError as error:
            raise _refused(path, error) from None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except OSError as error:
            _cut(self._path)
            raise _refused(self._path, error) from None

    def read_logs(self, log_number_from: int):
        try:
            yield from super().read_logs(log_number_from)
        except OSError as error:
            raise _refused(self._path, error) from None


class _Kept(BaseJournalBackend):
    """Keeps the entries of a new journal in memory."""

    def __init__(self):
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs += logs


def _refused(path: Path, error: OSError) -> InputError:
    return InputError(
        f"the study in {path} cannot be written or read ({error.strerror}); what is "
        "complete in it stays: free space or mend access to it, and run again"
    )


def _is_torn(path: Path) -> bool:
    """Whether the last line was cut short, if all before it are entries.

    Raises:
      InputError: a line is none: the file is damaged, or no journal.
    """
    torn = b""
    with open(path, "rb") as journal:
        for number, line in enumerate(
            iter(lambda: journal.readline(_LONGEST_LINE), b"")
        ):
            if not line.endswith(b"\n"):
                torn = line
                break
            if not _is_entry(line):
                raise _no_journal(path, number + 1)
    # A file of one line that has no end may be anything: it has to begin as an entry does.
    if torn and not b'{"op_code"'.startswith(torn[:10]):
        raise _no_journal(path, number + 1)
    return bool(torn)


def _no_journal(path: Path, number: int) -> InputError:
    return InputError(
        f"the study in {path} cannot be read (line {number} is no entry of a journal); it "
        "is damaged or no journal of Optuna: move it away and tune again"
    )


def _is_entry(line: bytes) -> bool:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("op_code"), int)
        and isinstance(entry.get("worker_id"), str)
    )


def _cut(path: Path) -> None:
    """Ends the file after its last whole line, while no host appends."""
    lock = JournalLock(path)
    lock.acquire()
    try:
        with open(path, "r+b") as journal:
            size = journal.seek(0, os.SEEK_END)
            start = max(0, size - _LONGEST_LINE)
            journal.seek(start)
            kept = start + journal.read().rfind(b"\n") + 1
            if kept < size:
                journal.truncate(kept)
                logging.warning(
                    "%s ended in an entry that was cut short; its %d bytes are removed",
                    path,
                    size - kept,
                )
    finally:
        lock.release()
