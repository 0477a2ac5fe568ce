"""Places at addresses: volumes of a bucket or a web server, read through TensorStore.

`s3://bucket/em.zarr`, `gs://bucket/em`, `https://host/em`: what a path of this machine is to
the readers (`pathlib.Path`, as far as they ask), so that one reader of zarr, N5 and precomputed
serves both. Keys of an account never stand in an address, which goes into logs and attributes.
"""

import atexit
import functools
import pathlib
import posixpath
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import access, address
from nisbjax.store.access import WAY
from nisbjax.store.request_errors import is_forbidden, unreachable

METADATA = (".zarray", ".zattrs", "zarr.json", "attributes.json", "info")
_WHOLE = (
    ".h5",
    ".hdf5",
    ".hdf",
    ".npy",
    ".tif",
    ".tiff",
    ".pkl",
    ".npz",
    ".swc",
    ".nii",
    ".nii.gz",
    ".b2nd",
)
_LEVELS_ABOVE = 4  # whose metadata are asked for beforehand


class Address:
    """A place below a bucket or a host: an object, or what a folder is on a disk.

    Attributes:
      server: `s3://bucket`, `gs://bucket`, `https://host:port`.
      key: below it, without slashes at its ends; "" for all of it.
    """

    def __init__(self, server: str, key: str):
        self.server = server
        self.key = posixpath.normpath(f"/{key}").strip("/")

    def __str__(self) -> str:
        return f"{self.server}/{self.key}".rstrip("/")

    def __fspath__(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __truediv__(self, inner: str) -> "Address":
        return Address(self.server, f"{self.key}/{inner}")

    @property
    def name(self) -> str:
        return posixpath.basename(self.key)

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.name)[1]

    @property
    def parent(self) -> "Address":
        return Address(self.server, posixpath.dirname(self.key))

    @property
    def parents(self) -> list["Address"]:
        found, here = [], self
        while here.key:
            here = here.parent
            found.append(here)
        return found

    def relative_to(self, above: Any) -> pathlib.PurePosixPath:
        return pathlib.PurePosixPath(self.key).relative_to(above.key or ".")

    def resolve(self) -> "Address":
        return self

    def glob(self, pattern: str) -> Iterator["Address"]:
        """Nothing: addresses are listed for patterns of volumes alone (`listing`)."""
        del pattern
        return iter(())

    def is_dir(self) -> bool:
        """Whether an array, a group or a volume has metadata here."""
        return any((self / name).exists() for name in METADATA)

    def exists(self) -> bool:
        return self.read() is not None

    def read(self) -> bytes | None:
        """The bytes of a small object, once for a process; None where there is none.

        What may not be read counts as none at first, since S3 says so of all that is not
        there to whoever may not list; see `require_allowed`.

        Raises:
          InputError: it cannot be reached.
        """
        key = str(self)
        if key in WAY.forbidden:
            return None
        try:
            found = self.start_read().result()
        except Exception as error:  # noqa: BLE001 (TensorStore has a few types for all)
            WAY.reads.pop(key, None)
            problem = unreachable(key, error)
            if not is_forbidden(error):
                raise problem from None
            WAY.forbidden[key] = problem
            return None
        return found.value if found.state == "value" else None

    def require_allowed(self, names: Sequence[str] = METADATA) -> None:
        """Refuses a place of which nothing was found, and something may not be read.

        Args:
          names: of what was asked for below it; "" is itself.

        Raises:
          InputError: that.
        """
        for name in names:
            problem = WAY.forbidden.get(str(self / name))
            if problem is not None:
                raise problem

    def start_read(self) -> Any:
        """Asks for an object, if that was not done before."""
        key = str(self)
        if key not in WAY.reads:
            try:
                store = ts.KvStore.open(
                    kvstore_of(self.parent), context=access.context()
                )
                WAY.reads[key] = store.result().read(self.name)
            except Exception as error:  # noqa: BLE001 (as above)
                raise unreachable(key, error) from None
        return WAY.reads[key]


Place = pathlib.Path | Address


def parse(text: str) -> Address:
    """The address that a text says.

    Raises:
      InputError: another scheme than these, or a password or a query in it.
    """
    found = address.PATTERN.fullmatch(text)
    if found is None:
        raise InputError(f"{text!r} is no address; wanted s3://bucket/path or the like")
    scheme, rest = found[1].lower(), found[2]
    address.require_public("an address", f"{scheme}://{rest}")
    if scheme not in access.DRIVERS:
        raise InputError(
            f"{scheme}://{rest} is none of the addresses that are read, s3:// gs:// http:// "
            "https://; copy it here first"
        )
    host, _, key = rest.partition("/")
    return Address(f"{scheme}://{host}", key)


def place_of(text: str) -> Place:
    """The path or address of a volume; the metadata of an address are asked for.

    Raises:
      InputError: an address of a single file, of many, or as `parse`.
    """
    if not address.is_address(text):
        return pathlib.Path(text)
    found = parse(text)
    for place in (found, *found.parents):
        if place.name.lower().endswith(_WHOLE):
            raise InputError(
                f"{place} is a single file, which is not read at an address; download it, or "
                "convert it to zarr, N5 or precomputed there"
            )
    if any(letter in found.key for letter in "*[,"):
        raise InputError(
            f"{found} is a pattern, and one volume is wanted here; name it"
        )
    for place in (found, *found.parents[:_LEVELS_ABOVE]):
        for name in METADATA:
            (place / name).start_read()
    return found


def kvstore_of(place: Place) -> dict[str, Any]:
    """TensorStore's key-value store of a folder: the one place that knows its drivers."""
    if isinstance(place, pathlib.Path):
        return {"driver": "file", "path": f"{place.resolve()}/"}
    scheme, _, host = place.server.partition("://")
    driver = access.DRIVERS[scheme]
    path = f"{place.key}/" if place.key else ""
    if driver == "http":
        return {"driver": "http", "base_url": place.server, "path": f"/{path}"}
    found = {"driver": driver, "bucket": host, "path": path}
    if driver == "s3":
        asked = WAY.access
        if asked.endpoint:
            found["endpoint"] = asked.endpoint.rstrip("/")
        if asked.region or asked.endpoint:
            found["aws_region"] = asked.region or "us-east-1"
    return found


def spec_of(driver: str, place: Place) -> dict[str, Any]:
    """TensorStore's specification of the array in a folder."""
    spec: dict[str, Any] = {"driver": driver, "kvstore": kvstore_of(place)}
    if isinstance(place, Address):
        spec["recheck_cached_data"] = "open"  # else every chunk is asked for again
    return spec


def context_of(place: Place) -> ts.Context | None:
    """What an array is opened in; None, TensorStore's own, for one of this machine."""
    return access.context() if isinstance(place, Address) else None


@functools.cache
def local_copy(text: str) -> pathlib.Path:
    """A single file of an address here, for as long as the process lives.

    Returns:
      A path of the file's own name; nothing is there where nothing is at the address.

    Raises:
      InputError: it cannot be reached, or may not be read.
    """
    source = parse(text)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="nisbjax_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    content = source.read()
    source.require_allowed([""])
    if content is not None:
        (folder / source.name).write_bytes(content)
    return folder / source.name
