"""Which boxes of an artifact are durable, with checksums and what made them.

An append-only file of JSON lines beside the artifact: the first names the fingerprints of
everything that determines the content, each further one a finished box, the last says that
the whole is finished. A line is written after its data are durable, so a stage killed at
any moment goes on from here. (A missing zarr chunk proves nothing: chunks that equal the
fill value are never written. PyTC's chunked inference takes an existing file for done.)
"""

import json
import os
import pathlib
import threading
from collections.abc import Mapping
from typing import Any

from nisbjax.errors import InputError


def path_beside(artifact: str | os.PathLike) -> pathlib.Path:
    """Where the manifest of an artifact lies: `raw.zarr` -> `raw.zarr.manifest.jsonl`."""
    artifact = pathlib.Path(artifact)
    return artifact.with_name(artifact.name + ".manifest.jsonl")


class Manifest:
    """The finished parts of one artifact; safe to use from several threads.

    Args:
      path: of the manifest's file; made if missing.
      fingerprint: of the inputs and settings that determine the artifact's content.

    Raises:
      InputError: the file was written for another fingerprint, or is damaged before its
        last line (a torn last line is what a kill leaves, and is dropped).
    """

    def __init__(self, path: str | os.PathLike, fingerprint: Mapping[str, Any]):
        self.path = pathlib.Path(path)
        self._lock = threading.Lock()
        self._entries: dict[str, dict[str, Any]] = {}
        self._finish: dict[str, Any] | None = None
        wanted = json.loads(json.dumps(dict(fingerprint)))
        lines, length = _read(self.path)
        if lines:
            _compare(self.path, lines[0].get("fingerprint", {}), wanted)
            for line in lines[1:]:
                if "finished" in line:
                    self._finish = line["finished"]
                else:
                    self._entries[line["key"]] = line
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        os.ftruncate(self._file, length)
        os.lseek(self._file, length, os.SEEK_SET)
        if not lines:
            self._append({"fingerprint": wanted})

    def _append(self, line: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")
        os.fsync(self._file)

    def done(self, key: str) -> bool:
        return key in self._entries

    def facts(self, key: str) -> dict[str, Any]:
        """What was recorded with a key, its checksum included."""
        return self._entries[key]

    @property
    def keys(self) -> list[str]:
        return list(self._entries)

    def record(self, key: str, checksum: str, **facts: Any) -> None:
        """Notes that a part is durable; call it after the data are."""
        line = {"key": key, "checksum": checksum, **facts}
        with self._lock:
            self._append(line)
            self._entries[key] = line

    def finish(self, **facts: Any) -> None:
        """Notes that the artifact is complete."""
        with self._lock:
            self._append({"finished": facts})
            self._finish = facts

    @property
    def finished(self) -> bool:
        return self._finish is not None

    @property
    def finish_facts(self) -> dict[str, Any]:
        return dict(self._finish or {})

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> "Manifest":  # noqa: PYI034 (jaxtyping cannot read Self)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def require_finished(artifact: str | os.PathLike) -> None:
    """Refuses an artifact whose own manifest says that it is not complete.

    Artifacts of other programs have no manifest and pass.

    Raises:
      InputError: the manifest has no finishing line.
    """
    path = path_beside(artifact)
    if not path.exists():
        return
    lines, _ = _read(path)
    if not any("finished" in line for line in lines):
        parts = sum("key" in line for line in lines)
        raise InputError(
            f"{artifact} is unfinished ({parts} parts are written); run the stage that "
            "writes it again, it goes on where it stopped"
        )


def require_same(artifact: str | os.PathLike, fingerprint: Mapping[str, Any]) -> None:
    """Refuses to go on with an artifact that something else made; writes nothing.

    Args:
      artifact: which may have no manifest yet.
      fingerprint: entries that its manifest must have, among others.

    Raises:
      InputError: naming the entries that differ.
    """
    lines, _ = _read(path_beside(artifact))
    if lines:
        found = lines[0].get("fingerprint", {})
        wanted = json.loads(json.dumps(dict(fingerprint)))
        _compare(path_beside(artifact), {k: found.get(k) for k in wanted}, wanted)


def _read(path: pathlib.Path) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of a manifest, and their length in bytes."""
    if not path.exists():
        return [], 0
    data = path.read_bytes()
    length = data.rfind(b"\n") + 1
    lines = []
    for number, line in enumerate(data[:length].splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except ValueError:
            raise InputError(
                f"{path} is damaged in line {number}; remove it and its artifact, and "
                "run the stage again"
            ) from None
    return lines, length


def _compare(path: pathlib.Path, found: Mapping, wanted: Mapping) -> None:
    differing = sorted(
        key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)
    )
    if differing:
        key = differing[0]
        raise InputError(
            f"{path} belongs to a run with other {', '.join(differing)} "
            f"({key}: {found.get(key)!r}, now {wanted.get(key)!r}); remove the artifact or "
            "name another output"
        )
