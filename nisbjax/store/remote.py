"""Places at addresses: volumes of a bucket or a web server, read through TensorStore.

`s3://bucket/em.zarr`, `gs://bucket/em`, `https://host/em`: what a path of this machine is to
the readers (`pathlib.Path`, as far as they ask), so that one reader of zarr, N5 and precomputed
serves both. Nothing is listed: web servers cannot, and a volume has millions of chunks. Keys of
an account never stand in an address, which goes into logs and attributes. PyTC and BANIS read
this machine's files alone.
"""

import atexit
import functools
import os
import pathlib
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import address
from nisbjax.store.views import words

_DRIVERS = {"s3": "s3", "gs": "gcs", "http": "http", "https": "http"}
METADATA = (".zarray", ".zattrs", "zarr.json", "attributes.json", "info")
_WHOLE = (".h5", ".hdf5", ".hdf", ".npy", ".tif", ".tiff", ".pkl", ".npz", ".swc")
_FIRST_DELAY, _LONGEST_DELAY = "0.5s", "8s"  # between two tries
_LEVELS_ABOVE = 4  # whose metadata are asked for beforehand


class Access(NamedTuple):
    """How addresses are reached, in this process.

    Attributes:
      endpoint: of an S3 server that is not Amazon's, `http://host:port`; "" for that.
      region: of an S3 bucket; "" to let it be found.
      anonymous: whether S3 is asked without an account.
      profile: of the account in ~/.aws; "" for the environment's.
      timeout_s: silence after which a request is given up, and tried again.
      retries: how often.
      cache_gb: memory for chunks that were read, of all arrays together.
    """

    endpoint: str = ""
    region: str = ""
    anonymous: bool = False
    profile: str = ""
    timeout_s: float = 30.0
    retries: int = 5
    cache_gb: float = 1.0


class _Way:
    """The access that holds in this process, and what it has read of metadata."""

    def __init__(self) -> None:
        self.access = Access()
        self.context: ts.Context | None = None
        self.reads: dict[str, Any] = {}
        self.forbidden: dict[str, InputError] = {}


_WAY = _Way()


def settle(access: Access) -> None:
    """Says how addresses are reached from now on; volumes that are open go on as they are.

    The silence allowed is that of the first one that this process used: libcurl's is set once.

    Raises:
      InputError: an endpoint with a password, or none of http.
    """
    if access.endpoint:
        address.require_public("remote.endpoint", access.endpoint)
        if not re.fullmatch(r"https?://[^/]+/?", access.endpoint):
            raise InputError(
                f"remote.endpoint is {access.endpoint}; wanted http://host:port"
            )
    silence = str(max(int(access.timeout_s + 0.5), 1))
    os.environ["TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS"] = silence
    os.environ["TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES"] = "1"
    if access != _WAY.access:
        _WAY.access, _WAY.context = access, None
    _WAY.reads.clear()
    _WAY.forbidden.clear()


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
        """Nothing: addresses are not listed."""
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
        if key in _WAY.forbidden:
            return None
        try:
            found = self.start_read().result()
        except Exception as error:  # noqa: BLE001 (TensorStore has a few types for all)
            _WAY.reads.pop(key, None)
            problem = unreachable(key, error)
            if not _is_forbidden(error):
                raise problem from None
            _WAY.forbidden[key] = problem
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
            problem = _WAY.forbidden.get(str(self / name))
            if problem is not None:
                raise problem

    def start_read(self) -> Any:
        """Asks for an object, if that was not done before."""
        key = str(self)
        if key not in _WAY.reads:
            try:
                store = ts.KvStore.open(kvstore_of(self.parent), context=context())
                _WAY.reads[key] = store.result().read(self.name)
            except Exception as error:  # noqa: BLE001 (as above)
                raise unreachable(key, error) from None
        return _WAY.reads[key]


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
    if scheme not in _DRIVERS:
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
            f"{found} is a pattern, and addresses are not listed; name each volume, with "
            "commas between them"
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
    driver = _DRIVERS[scheme]
    path = f"{place.key}/" if place.key else ""
    if driver == "http":
        return {"driver": "http", "base_url": place.server, "path": f"/{path}"}
    found = {"driver": driver, "bucket": host, "path": path}
    if driver == "s3":
        access = _WAY.access
        if access.endpoint:
            found["endpoint"] = access.endpoint.rstrip("/")
        if access.region or access.endpoint:
            found["aws_region"] = access.region or "us-east-1"
    return found


def spec_of(driver: str, place: Place) -> dict[str, Any]:
    """TensorStore's specification of the array in a folder."""
    spec: dict[str, Any] = {"driver": driver, "kvstore": kvstore_of(place)}
    if isinstance(place, Address):
        spec["recheck_cached_data"] = "open"  # else every chunk is asked for again
    return spec


def context_of(place: Place) -> ts.Context | None:
    """What an array is opened in; None, TensorStore's own, for one of this machine."""
    return context() if isinstance(place, Address) else None


def context() -> ts.Context:
    """Tries, accounts and the cache of chunks that all addresses share."""
    if _WAY.context is None:
        access = _WAY.access
        tries = {
            "max_retries": access.retries,
            "initial_delay": _FIRST_DELAY,
            "max_delay": _LONGEST_DELAY,
        }
        asked: dict[str, Any] = {
            f"{driver}_request_retries": tries for driver in ("http", "s3", "gcs")
        }
        asked["cache_pool"] = {"total_bytes_limit": int(access.cache_gb * 1e9)}
        if access.anonymous:
            asked["aws_credentials"] = {"type": "anonymous"}
        elif access.profile:
            asked["aws_credentials"] = {"type": "profile", "profile": access.profile}
        elif os.environ.get("AWS_ACCESS_KEY_ID"):  # no other place is looked into
            asked["aws_credentials"] = {"type": "environment"}
        _WAY.context = ts.Context(asked)
    return _WAY.context


_FORBIDDEN = (
    r"PERMISSION_DENIED|UNAUTHENTICATED|HTTP code 40[13]|Access ?Denied|[Cc]redential"
    r"|InvalidAccessKey|SignatureDoesNotMatch"
)
_SAID = (
    (
        _FORBIDDEN,
        "it may not be read",
        (
            "name the account by --config.remote.profile, or ask without one, "
            "--config.remote.anonymous"
        ),
    ),
    (
        r"retry attempts failed|UNAVAILABLE|ABORTED|DEADLINE",
        "it cannot be reached",
        (
            "run it again, what is done is kept; or check the address, "
            "--config.remote.endpoint and the network"
        ),
    ),
)


def unreachable(source: str, error: BaseException) -> InputError:
    """One line for what TensorStore says of an address."""
    said = str(error)
    text = re.sub(r"\s+", " ", words(error))
    for pattern, what, advice in _SAID:
        if re.search(pattern, said):
            return InputError(f"{source}: {what} ({text}); {advice}")
    return InputError(f"{source} cannot be read: {text}; check the address")


def _is_forbidden(error: BaseException) -> bool:
    return re.search(_FORBIDDEN, str(error)) is not None


def fetched() -> tuple[int, int]:
    """Bytes and requests that this process has read from addresses so far."""
    totals = {"bytes_read": 0, "read": 0}
    for driver in ("http", "s3", "gcs"):
        for found in ts.experimental_collect_matching_metrics(
            f"/tensorstore/kvstore/{driver}/"
        ):
            what = found["name"].rpartition("/")[2]
            if what in totals:
                totals[what] += sum(v.get("value", 0) for v in found["values"])
    return totals["bytes_read"], totals["read"]


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
