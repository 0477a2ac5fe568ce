"""How this process reaches addresses: account, tries, time-outs, and the cache of chunks.

What is settled holds for the whole process, since volumes are opened by their paths in every
stage, and what was read of small objects is kept with it. PyTC and BANIS read this machine's
files alone.
"""

import os
import re
from typing import Any, NamedTuple

import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import address

DRIVERS = {"s3": "s3", "gs": "gcs", "http": "http", "https": "http"}  # of TensorStore
_FIRST_DELAY, _LONGEST_DELAY = "0.5s", "8s"  # between two tries


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
    """The access that holds in this process, and what it has read of small objects."""

    def __init__(self) -> None:
        self.access = Access()
        self.context: ts.Context | None = None
        self.reads: dict[str, Any] = {}
        self.forbidden: dict[str, InputError] = {}


WAY = _Way()


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
    if access != WAY.access:
        WAY.access, WAY.context = access, None
    forget_reads()


def forget_reads() -> None:
    """Small objects are asked for again: they may say something else by now."""
    WAY.reads.clear()
    WAY.forbidden.clear()


def context() -> ts.Context:
    """Tries, accounts and the cache of chunks that all addresses share."""
    if WAY.context is None:
        access = WAY.access
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
        WAY.context = ts.Context(asked)
    return WAY.context


def fetched() -> tuple[int, int]:
    """Bytes and requests that this process has read from addresses so far."""
    return _totals("bytes_read", "read")


def sent() -> tuple[int, int]:
    """Bytes and requests that this process has written to addresses so far."""
    return _totals("bytes_written", "write")


def _totals(size: str, count: str) -> tuple[int, int]:
    totals = {size: 0, count: 0}
    for driver in ("http", "s3", "gcs"):
        for found in ts.experimental_collect_matching_metrics(
            f"/tensorstore/kvstore/{driver}/"
        ):
            what = found["name"].rpartition("/")[2]
            if what in totals:
                totals[what] += sum(v.get("value", 0) for v in found["values"])
    return totals[size], totals[count]
