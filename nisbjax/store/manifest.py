"""Which parts of an artifact are durable, what their files hold, and what made them.

    <artifact>/.manifest.jsonl     inside the folder, so it goes where the artifact goes

An append-only file of JSON lines: the first names the fingerprints of everything that
determines the content, each further one a finished part with size and checksum of its
files, the last says that the whole is finished, and of how many parts it is. A line is
written after its data are durable, so a stage killed at any moment goes on from here. (A
missing zarr chunk proves nothing by itself: chunks that equal the fill value are never
written. PyTC's chunked inference takes an existing file for done.)

One process writes an artifact at a time; whoever opens its manifest holds its lock.
"""

import contextlib
import json
import os
import pathlib
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from absl import logging

from nisbjax.errors import InputError
from nisbjax.store import files
from nisbjax.store.comparison import (
    mend_metadata,
    metadata_of,
    metadata_problems,
    problems_of,
    remove,
)
from nisbjax.store.fingerprint_versions import difference, is_earlier
from nisbjax.store.manifest_lines import State, path_inside, plain, read
from nisbjax.store.remains import remove_remains, require_own
from nisbjax.store.stored import Fact, Facts


class Manifest:
    """The finished parts of one artifact; safe to use from several threads.

    Args:
      artifact: a folder; made if missing. An empty one, or an array without a voxel
        written, begins again, and so do chunks that outlived their array's removal.
      fingerprint: of the inputs and settings that determine the artifact's content.
      moved: whether the files of a part lie elsewhere once it is recorded, so that only
        metadata are compared here.

    Raises:
      InputError: the artifact was made from something else, or not by this program; or its
        manifest is damaged before its last line (a torn last line is what a kill leaves,
        and is dropped).
    """

    def __init__(
        self,
        artifact: str | os.PathLike,
        fingerprint: Mapping[str, Any],
        *,
        moved: bool = False,
    ):
        self._moved = moved
        self.artifact = pathlib.Path(artifact)
        self.path = path_inside(artifact)
        self._lock = threading.Lock()
        self._state = State()
        self.fingerprint = wanted = plain(fingerprint)
        lines, self._length = read(self.artifact)
        if lines:
            require_equal(self.artifact, lines[0]["fingerprint"], wanted)
            for line in lines[1:]:
                self._state.take(line)
        else:
            require_own(self.artifact)
            self.artifact.mkdir(parents=True, exist_ok=True)
            remove_remains(self.artifact)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        if os.fstat(self._file).st_size != self._length:  # a torn last line
            os.ftruncate(self._file, self._length)
        if not lines:
            self._append({"fingerprint": wanted})
            files.sync(self.artifact)

    def _append(self, line: dict[str, Any]) -> None:
        """Writes a line durably; a line that fails half-way (a full disk) leaves none."""
        content = memoryview(json.dumps(line).encode() + b"\n")
        try:
            written = 0
            while written < len(content):
                written += os.write(self._file, content[written:])
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._length)
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self._length += len(content)

    def done(self, key: str) -> bool:
        return key in self._state.parts

    def facts(self, key: str) -> dict[str, Any]:
        """What was recorded with a part, without its files."""
        return self._state.parts[key]

    def files(self, key: str) -> dict[str, Fact]:
        """The files of a part, as they were last recorded with any part."""
        return {name: self._state.files[name] for name in self._state.names[key]}

    @property
    def keys(self) -> list[str]:
        return list(self._state.parts)

    def record(self, key: str, files: Facts | None = None, **facts: Any) -> None:
        """Notes that a part is durable; call it after its data are.

        Args:
          key: of the part.
          files: those that hold it, relative to the artifact (see `stored.of_box`). A file
            that several parts name is believed as the last of them says.
          **facts: whatever else is known of it.

        Raises:
          InputError: the artifact was removed or replaced meanwhile.
        """
        self.require_present()
        known = {name: fact and list(fact) for name, fact in (files or {}).items()}
        self._note({"key": key, "files": known, **facts})

    def note(self, name: str, **facts: Any) -> None:
        """Notes something that is not a part; `noted` gives it back, the last one."""
        self._note({"note": name, **facts})

    def noted(self, name: str) -> dict[str, Any] | None:
        return self._state.notes.get(name)

    def finish(self, **facts: Any) -> None:
        """Notes that the artifact is complete, if it is.

        Raises:
          InputError: it was removed or replaced meanwhile, as a whole or in part.
        """
        self.require_present()
        for key, problem in self.damaged(contents=False).items():
            raise InputError(
                f"{self.artifact}: {problem} (part {key}), changed while it was written; "
                "run the stage again, it writes that part again"
            )
        known = {n: f for n, f in metadata_of(self.artifact).items() if f is not None}
        parts = len(self._state.parts)
        self._note({"finished": facts, "metadata": known, "parts": parts})

    def _note(self, line: dict[str, Any]) -> None:
        with self._lock:
            self._append(line)
            self._state.take(line)

    @property
    def finished(self) -> bool:
        return self._state.finish is not None

    @property
    def finish_facts(self) -> dict[str, Any]:
        return dict(self._state.finish or {})

    def require_present(self) -> None:
        """Refuses to go on with an artifact that somebody removed or replaced.

        Raises:
          InputError: its folder does not hold this manifest any more.
        """
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if os.path.samestat(os.fstat(self._file), os.stat(self.path)):
                return
        remove_remains(self.artifact)
        raise InputError(
            f"{self.artifact} was removed or replaced while it was written; run the stage "
            "again"
        )

    def damaged(self, *, contents: bool) -> dict[str, str]:
        """Parts with a file that is missing or another, and a phrase on it for each.

        Args:
          contents: whether checksums are compared too, and not sizes alone.
        """
        names = [] if self._moved else list(self._state.files)
        problems = problems_of(
            self.artifact, self._state.files, names, contents=contents
        )
        return {
            key: problems[name]
            for key in self._state.parts
            for name in reversed(self._state.names[key])
            if name in problems
        }

    def forget(self, keys: Iterable[str]) -> None:
        """Parts that are to be made again; the artifact is unfinished then."""
        keys = list(keys)
        if keys:
            self._note({"forgotten": keys})

    def verify(self, *, contents: bool = True, opened: bool = False) -> list[str]:
        """Forgets the parts that are damaged, removes such files, and says so in the log.

        A chunk that cannot be inflated would hinder its writer: TensorStore reads those at
        an array's end before it writes them. Metadata get back what they said, and keep
        what others have added.

        Args:
          contents: whether checksums are compared too, and not sizes alone.
          opened: whether the array is open by now, so that its metadata, which are as
            they were asked for, stay.

        Returns:
          Their keys.
        """
        damaged = self.damaged(contents=contents)
        for key, problem in damaged.items():
            logging.warning(
                "%s: %s; part %s is made again", self.artifact, problem, key
            )
        names = [name for key in damaged for name in self._state.names[key]]
        bad = list(
            problems_of(self.artifact, self._state.files, names, contents=contents)
        )
        said = self._state.metadata  # until something is forgotten
        metadata = metadata_problems(self.artifact, said)
        if metadata:
            problems = ", ".join(metadata.values())
            logging.warning("%s: %s; made again", self.artifact, problems)
            self._note({"forgotten": []})
        self.forget(damaged)
        for name in bad:
            remove(self.artifact / name)
        for name in () if opened else metadata:
            mend_metadata(self.artifact, name, said[name])
        return list(damaged)

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> "Manifest":  # noqa: PYI034 (jaxtyping cannot read Self)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_ADVICE = "remove it or name another output"


def require_same(
    artifact: str | os.PathLike, fingerprint: Mapping[str, Any], advice: str = _ADVICE
) -> None:
    """Refuses to go on with an artifact that something else made; writes nothing.

    Args:
      artifact: which may not exist yet.
      fingerprint: entries that its manifest must have, among others.
      advice: what to do about one of ours that others made.

    Raises:
      InputError: naming the entries that differ; or another program's file or folder.
    """
    artifact = pathlib.Path(artifact)
    lines, _ = read(artifact)
    if not lines:
        require_own(artifact)
        return
    found, wanted = lines[0]["fingerprint"], plain(fingerprint)
    require_equal(artifact, {key: found.get(key) for key in wanted}, wanted, advice)


def require_equal(
    path: str | os.PathLike, found: Mapping, wanted: Mapping, advice: str = _ADVICE
) -> None:
    """Refuses a file or folder that was made from something else.

    Args:
      path: for the message.
      found: what made it, as JSON has it.
      wanted: what is to make it.
      advice: what to do.

    Raises:
      InputError: naming the entries that differ, and both values of the first.
    """
    wanted = plain(wanted)
    differing = sorted(
        key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)
    )
    if differing:
        key = differing[0]
        if all(is_earlier(found.get(other)) for other in differing):
            raise InputError(
                f"{path} {difference(found[key], '')} ({', '.join(differing)}); {advice}"
            )
        raise InputError(
            f"{path} belongs to a run with other {', '.join(differing)} "
            f"({key}: {found.get(key)!r}, now {wanted.get(key)!r}); {advice}"
        )
