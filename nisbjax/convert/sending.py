"""An output at an address: its chunks are written here box by box, and moved there.

A bucket knows no locks, no renaming and no appending, so the lock, the manifest and the metadata
lie here while an output is made, below a folder of the bucket's name: a conversion that was
killed goes on where they are. A box is recorded once the bucket has said that its chunks are
kept. The metadata follow when all chunks are there, the manifest last, so what is unfinished
is no array to any reader; then nothing stays here. PyTC and BANIS write to disks alone.
"""

import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import tensorstore as ts
from absl import logging

from nisbjax.errors import InputError
from nisbjax.store import access, finished, manifest_lines, places
from nisbjax.store.manifest import Manifest, require_equal
from nisbjax.store.manifest_lines import NAME
from nisbjax.store.places import Address
from nisbjax.store.request_errors import is_forbidden, unreachable
from nisbjax.store.stored import Facts

_ATTRIBUTES = "attributes.json"  # of the container around an N5 output


def address_of(text: str) -> Address:
    """The address of an output.

    Raises:
      InputError: a web server, or a bucket as a whole.
    """
    found = places.parse(text)
    if found.server.startswith("http"):
        raise InputError(
            f"{found} is at a web server, which is read alone; wanted s3://bucket/path, "
            "gs://bucket/path or a path of this machine"
        )
    if not found.key or any(letter in found.key for letter in "*[,"):
        raise InputError(f"{found} is no place of one output; wanted s3://bucket/path")
    return found


def folder_of(target: Address, records: str) -> pathlib.Path:
    """Where an output lies while it is made: `<records>/s3_bucket/path`."""
    return pathlib.Path(records, target.server.replace("://", "_"), target.key)


class Sending:
    """One output on its way.

    Args:
      target: where it goes.
      folder: where it is made, as `folder_of`.
    """

    def __init__(self, target: Address, folder: pathlib.Path):
        self._target = target
        self._folder = folder
        spec = places.kvstore_of(target)
        self._objects = ts.KvStore.open(spec, context=access.context()).result()

    def is_there(self, made_from: Mapping[str, Any]) -> bool:
        """Whether the output is at its address as a whole; writes nothing.

        Raises:
          InputError: what lies there is unfinished, of something else, or not ours.
        """
        if manifest_lines.path_inside(self._folder).exists():
            return False  # begun here
        lines, _ = manifest_lines.read(self._target)
        if lines:
            require_equal(self._target, lines[0]["fingerprint"], made_from)
            finished.finished_files(self._target)
            return True
        if self._target.is_dir() or self._names():
            raise InputError(
                f"{self._target} holds objects already, and no {NAME}; go on in the folder "
                "where they were begun, remove them, or name another output"
            )
        return False

    def forget_lost(self, manifest: Manifest) -> None:
        """Lets parts be made again of which an object is gone from the address."""
        names = self._names() if manifest.keys else None
        if names is None:
            return
        lost = [
            key
            for key in manifest.keys
            if any(fact and n not in names for n, fact in manifest.files(key).items())
        ]
        if lost:
            logging.warning(
                "%s: chunks of %d parts are gone; made again", self._target, len(lost)
            )
            manifest.forget(lost)

    def move(self, known: Facts) -> None:
        """Sends the files of a part and removes them here; they are kept when it returns."""
        names = [name for name, fact in known.items() if fact is not None]
        self._send(names)
        for name in names:
            (self._folder / name).unlink()

    def finish(self) -> None:
        """Sends the metadata, and the manifest last; removes all that lies here."""
        names = [
            path.relative_to(self._folder).as_posix()
            for path in sorted(self._folder.rglob("*"))
            if path.is_file() and path.name != NAME
        ]
        self._send(names)
        self._send_container()
        self._send([NAME])
        access.forget_reads()
        manifest_lines.path_inside(
            self._folder
        ).unlink()  # what is left is not gone on with
        shutil.rmtree(self._folder)

    def remove_empty(self, records: str) -> None:
        """Removes the folders around an output that was sent, as far as they are empty."""
        for above in self._folder.parents:
            if above == pathlib.Path(records):
                return
            try:
                above.rmdir()
            except OSError:  # another output is on its way
                return

    def _send_container(self) -> None:
        """What the folder `.n5` around the output says, unless it is said there."""
        place = self._target
        for folder in self._folder.parents:
            place = place.parent
            if folder.suffix.lower() == ".n5" and (folder / _ATTRIBUTES).is_file():
                there = place / _ATTRIBUTES
                if not there.exists():
                    spec = places.kvstore_of(place)
                    content = (folder / _ATTRIBUTES).read_bytes()
                    store = ts.KvStore.open(spec, context=access.context()).result()
                    _wait(str(there), store.write(_ATTRIBUTES, content))
                (folder / _ATTRIBUTES).unlink()
                return

    def _send(self, names: list[str]) -> None:
        begun = [
            (name, self._objects.write(name, (self._folder / name).read_bytes()))
            for name in names
        ]
        for name, future in begun:
            _wait(f"{self._target}/{name}", future)

    def _names(self) -> set[str] | None:
        """Of all objects below the address; None where they may not be listed."""
        try:
            return {name.decode() for name in self._objects.list().result()}
        except Exception as error:  # noqa: BLE001 (TensorStore has a few types for all)
            if not is_forbidden(error):
                raise unreachable(str(self._target), error) from None
        logging.warning(
            "%s may not be listed, so nobody looks for what lies there", self._target
        )
        return None


def _wait(name: str, future: ts.Future) -> None:
    try:
        future.result()
    except Exception as error:  # noqa: BLE001 (as above)
        raise unreachable(name, error, "written") from None
