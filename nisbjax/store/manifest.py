"""Which parts of an artifact are durable, what their files hold, and what made them.

    <artifact>/.manifest.jsonl     inside the folder, so it goes where the artifact goes

An append-only file of JSON lines: the first names the fingerprints of everything that
determines the content, each further one a finished part with size and checksum of its
files, the last says that the whole is finished, and of how many parts it is. A line is written after its data are
durable, so a stage killed at any moment goes on from here. (A missing zarr chunk proves
nothing by itself: chunks that equal the fill value are never written. PyTC's chunked
inference takes an existing file for done.)

One process writes an artifact at a time; whoever opens its manifest holds its lock.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from absl import logging

from nisbjax.errors import InputError
from nisbjax.store import files, records, schema, stored
from nisbjax.store.stored import Fact, Facts

NAME = ".manifest.jsonl"
METADATA = (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")
_CHUNK = re.compile(r"\d+(\.\d+)*")
_THREADS = 4  # reading and comparing files
_FILE = schema.either(schema.nothing(), schema.list_of(schema.whole(), 2))
_FIRST = {"fingerprint": schema.table_of()}
_LINE = schema.either(
    _FIRST,
    {"key": schema.text(), "files": schema.optional(schema.table_of(_FILE))},
    {
        "finished": schema.table_of(),
        "metadata": schema.optional(schema.table_of(_FILE)),
        "parts": schema.optional(schema.whole()),
    },
    {"forgotten": schema.list_of(schema.text())},
    {"note": schema.text()},
)


def path_inside(artifact: str | os.PathLike) -> pathlib.Path:
    """Where the manifest of an artifact lies."""
    return pathlib.Path(artifact) / NAME


class Manifest:
    """The finished parts of one artifact; safe to use from several threads.

    Args:
      artifact: a folder; made if missing. An empty one, or an array without a voxel
        written, begins again, and so do chunks that outlived their array's removal.
      fingerprint: of the inputs and settings that determine the artifact's content.

    Raises:
      InputError: the artifact was made from something else, or not by this program; or its
        manifest is damaged before its last line (a torn last line is what a kill leaves,
        and is dropped).
    """

    def __init__(self, artifact: str | os.PathLike, fingerprint: Mapping[str, Any]):
        self.artifact = pathlib.Path(artifact)
        self.path = path_inside(artifact)
        self._lock = threading.Lock()
        self._state = _State()
        self.fingerprint = wanted = _plain(fingerprint)
        lines, self._length = _read(self.artifact)
        if lines:
            require_equal(self.artifact, lines[0]["fingerprint"], wanted)
            for line in lines[1:]:
                self._state.take(line)
        else:
            _require_own(self.artifact)
            self.artifact.mkdir(parents=True, exist_ok=True)
            _remove_remains(self.artifact)
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
        known = {n: list(f) for n, f in _metadata(self.artifact).items() if f}
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
        _remove_remains(self.artifact)
        raise InputError(
            f"{self.artifact} was removed or replaced while it was written; run the stage "
            "again"
        )

    def damaged(self, *, contents: bool) -> dict[str, str]:
        """Parts with a file that is missing or another, and a phrase on it for each.

        Args:
          contents: whether checksums are compared too, and not sizes alone.
        """
        names = list(self._state.files)
        problems = _problems(self.artifact, self._state.files, names, contents=contents)
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
        an array's end before it writes them.

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
            _problems(self.artifact, self._state.files, names, contents=contents)
        )
        metadata = metadata_problems(self.artifact, self._state.metadata)
        if metadata:
            problems = ", ".join(metadata.values())
            logging.warning("%s: %s; made again", self.artifact, problems)
            self._note({"forgotten": []})
        self.forget(damaged)
        for name in bad if opened else (*bad, *metadata):
            _remove(self.artifact / name)
        return list(damaged)

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> "Manifest":  # noqa: PYI034 (jaxtyping cannot read Self)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _State:
    """What the lines of a manifest say, taken in their order."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[str, Any]] = {}
        self.names: dict[str, tuple[str, ...]] = {}  # of a part's files
        self.files: dict[str, Fact] = {}
        self.notes: dict[str, dict[str, Any]] = {}
        self.finish: dict[str, Any] | None = None
        self.metadata: dict[str, Fact] = {}  # of arrays, as they were at the finish

    def take(self, line: Mapping[str, Any]) -> None:
        if "finished" in line:
            # A manifest that has lost lines knows less than what there was to know.
            whole = line.get("parts") == len(self.parts)
            self.finish = line["finished"] if whole else None
            found = line.get("metadata", {})
            self.metadata = {n: f and (f[0], f[1]) for n, f in found.items()}
        elif "note" in line:
            self.notes[line["note"]] = dict(line)
        elif "forgotten" in line:
            self.finish, self.metadata = None, {}
            for key in line["forgotten"]:
                self.parts.pop(key, None)
                self.names.pop(key, None)
            kept = {name for names in self.names.values() for name in names}
            self.files = {name: self.files[name] for name in kept}
        elif "key" in line:
            key, named = line["key"], line.get("files", {})
            self.files |= {
                name: None if fact is None else (fact[0], fact[1])
                for name, fact in named.items()
            }
            self.names[key] = tuple(named)
            self.parts[key] = {k: v for k, v in line.items() if k != "files"}


def locate(path: str | os.PathLike) -> tuple[pathlib.Path, str] | None:
    """The artifact of ours that an array belongs to, and where in it the array lies.

    Returns:
      The folder of the artifact, and what its manifest puts before the names of the
      array's files ("", or `img/` in a group); None where neither has a manifest.
    """
    path = pathlib.Path(path)
    for artifact, prefix in ((path, ""), (path.parent, f"{path.name}/")):
        if path_inside(artifact).is_file():
            return artifact, prefix
    return None


def finished_files(artifact: str | os.PathLike) -> tuple[dict[str, Fact], Facts] | None:
    """The files of a finished artifact, and those of its arrays' metadata; None without a
    manifest.

    Raises:
      InputError: its manifest is damaged, or it is unfinished.
    """
    state = _state(pathlib.Path(artifact))
    if state is None:
        return None
    if state.finish is None:
        raise InputError(_unfinished_line(artifact, state))
    return state.files, state.metadata


def require_known(folder: str | os.PathLike, attributes: Mapping[str, Any]) -> None:
    """Refuses an array of ours without a manifest: nobody knows whether it is whole.

    Args:
      folder: of the array, for which `locate` finds nothing.
      attributes: of the array, which say whose it is.

    Raises:
      InputError: it says that it is ours.
    """
    ours = str(attributes.get("software", "")).startswith("nisbjax ")
    if (ours or "made_of" in attributes) and os.path.isdir(folder):
        raise InputError(
            f"{folder} says that nisbjax wrote it and has no {NAME}, so that nobody knows "
            "whether it is whole; remove it and run the stage that writes it again, or copy "
            "it with its hidden files"
        )


def _unfinished_line(artifact: str | os.PathLike, state: _State) -> str:
    return (
        f"{artifact} is unfinished ({len(state.parts)} parts are written); run the stage "
        "that writes it again, it goes on where it stopped"
    )


def require_finished(artifact: str | os.PathLike) -> None:
    """Refuses an artifact of ours that is not complete, by its manifest and its files.

    Artifacts of other programs have no manifest and pass.

    Raises:
      InputError: the manifest has no finishing line, or a file that it names is missing or
        of another size.
    """
    located = locate(artifact)
    state = _state(located[0]) if located else None
    if located is None or state is None:
        return
    if state.finish is None:
        raise InputError(_unfinished_line(artifact, state))
    folder, prefix = located
    for problem in metadata_problems(folder, state.metadata).values():
        raise InputError(damage_line(folder, problem))
    names = [name for name in state.files if name.startswith(prefix)]
    for problem in _problems(folder, state.files, names, contents=False).values():
        raise InputError(damage_line(folder, problem))


def damage_line(artifact: str | os.PathLike, problem: str) -> str:
    """What to say of a finished artifact with such a problem."""
    return (
        f"{artifact}: {problem}; run the stage that writes it again (--mode=predict, "
        "decode or synth), it makes that part again"
    )


def require_same(artifact: str | os.PathLike, fingerprint: Mapping[str, Any]) -> None:
    """Refuses to go on with an artifact that something else made; writes nothing.

    Args:
      artifact: which may not exist yet.
      fingerprint: entries that its manifest must have, among others.

    Raises:
      InputError: naming the entries that differ; or another program's file or folder.
    """
    artifact = pathlib.Path(artifact)
    lines, _ = _read(artifact)
    if not lines:
        _require_own(artifact)
        return
    found, wanted = lines[0]["fingerprint"], _plain(fingerprint)
    require_equal(artifact, {key: found.get(key) for key in wanted}, wanted)


def problem_of(name: str, wanted: Fact, found: Fact) -> str | None:
    """A phrase on a chunk file that is not as recorded; None for one that is."""
    if found == wanted:
        return None
    if found == stored.NO_FILE or (found is not None and found[0] < 0):
        return f"{name} is no file, but a folder, a pipe or the like"
    kind = "chunk" if _CHUNK.fullmatch(name.rpartition("/")[2]) else "file"
    if wanted is None:
        return f"{kind} {name} is damaged (it was never written, and a file is there)"
    if found is None:
        return f"{kind} {name} is missing"
    if found[0] != wanted[0]:
        return f"{kind} {name} is damaged ({found[0]} bytes; it had {wanted[0]})"
    return f"{kind} {name} is damaged (its checksum is {found[1]:08x}, not {wanted[1]:08x})"


def _metadata(artifact: pathlib.Path) -> dict[str, Fact]:
    """The metadata files of the arrays in an artifact: its own, and those of a group's."""
    return {
        path.relative_to(artifact).as_posix(): stored.of_file(path)
        for folder in (
            artifact,
            *sorted(p for p in artifact.glob("[!.]*") if p.is_dir()),
        )
        for path in (folder / name for name in (".zarray", ".zattrs"))
        if os.path.lexists(path)
    }


def metadata_problems(artifact: pathlib.Path, known: Facts) -> dict[str, str]:
    """A phrase for each metadata file of a finished artifact that is not as it was.

    Attributes may be edited: of them only a file and an object are wanted.

    Args:
      artifact: its folder.
      known: what its last line says of them.
    """
    problems = {}
    for name, fact in known.items():
        found = stored.of_file(artifact / name)
        if found is not None and found[0] >= 0 and name.endswith(".zattrs"):
            with contextlib.suppress(OSError, ValueError):
                if isinstance(json.loads((artifact / name).read_bytes()), dict):
                    continue
            problems[name] = f"file {name} holds no attributes"
            continue
        problem = problem_of(name, fact, found)
        if problem is not None:
            problems[name] = problem
    return problems


def _remove(path: pathlib.Path) -> None:
    """Removes whatever is there, a folder with what it holds."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _problems(
    folder: pathlib.Path, known: Facts, names: Iterable[str], *, contents: bool
) -> dict[str, str]:
    """A phrase for each of some files that is not as known."""

    def look(name: str) -> tuple[str, str | None]:
        wanted = known[name]
        if contents:
            return name, problem_of(name, wanted, stored.of_file(folder / name))
        size = stored.size_of(folder / name)
        found = None if size is None else (size, wanted[1] if wanted else 0)
        return name, problem_of(name, wanted, found)

    if not contents:
        return {name: text for name, text in map(look, names) if text}
    with ThreadPoolExecutor(_THREADS) as pool:
        return {name: text for name, text in pool.map(look, names) if text}


def _state(artifact: pathlib.Path) -> _State | None:
    lines, _ = _read(artifact)
    if not lines:
        return None
    state = _State()
    for line in lines[1:]:
        state.take(line)
    return state


def _read(artifact: pathlib.Path) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of an artifact's manifest, and their length in bytes."""
    path = path_inside(artifact)
    if not path.exists():
        return [], 0
    advice = f"remove {artifact} and run the stage again"
    lines, length = records.read_json_lines(path, _LINE, advice)
    if lines:
        records.check(lines[0], _FIRST, f"{path}, line 1", advice)
    return lines, length


def _plain(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(fingerprint)))


def noted(artifact: str | os.PathLike, name: str) -> dict[str, Any] | None:
    """What the manifest of an artifact notes under a name; None for nothing."""
    state = _state(pathlib.Path(artifact))
    return None if state is None else state.notes.get(name)


def require_equal(path: str | os.PathLike, found: Mapping, wanted: Mapping) -> None:
    """Refuses a file or folder that was made from something else.

    Args:
      path: for the message.
      found: what made it, as JSON has it.
      wanted: what is to make it.

    Raises:
      InputError: naming the entries that differ, and both values of the first.
    """
    wanted = _plain(wanted)
    differing = sorted(
        key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)
    )
    if differing:
        key = differing[0]
        raise InputError(
            f"{path} belongs to a run with other {', '.join(differing)} "
            f"({key}: {found.get(key)!r}, now {wanted.get(key)!r}); remove it or name "
            "another output"
        )


def _contents(artifact: pathlib.Path) -> tuple[bool, bool, bool]:
    """Whether a folder holds metadata of arrays, chunks, and other files."""
    metadata = chunks = others = False
    for folder, below, names in os.walk(artifact):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            if name in METADATA:
                metadata = True
            elif _CHUNK.fullmatch(name):
                chunks = True
            elif not name.startswith("."):
                others = True
        if others or (metadata and chunks):
            break
    return metadata, chunks, others


def _require_own(artifact: pathlib.Path) -> None:
    """Refuses what lies in the way and has no manifest, unless it holds no data."""
    if artifact.exists() and not artifact.is_dir():
        raise InputError(
            f"{artifact} is a file, and a folder is to be written there; remove it or "
            "name another output"
        )
    metadata, chunks, others = _contents(artifact)
    if others or (metadata and chunks):
        raise InputError(
            f"{artifact} was not written by this stage: it has no {NAME}; remove it or "
            "name another output"
        )


def _remove_remains(artifact: pathlib.Path) -> None:
    """Removes chunks without an array: those that were being written as it was removed."""
    metadata, chunks, others = _contents(artifact)
    if others or metadata or not chunks:
        return
    logging.warning(
        "%s holds chunks without an array, the remains of one that was removed while it "
        "was written; they are removed too",
        artifact,
    )
    shutil.rmtree(artifact, ignore_errors=True)
    artifact.mkdir(parents=True, exist_ok=True)
