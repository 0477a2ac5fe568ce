"""Volumes of a bucket that match a pattern: `s3://bucket/train/seed*/data.zarr/img`.

Each star is answered by one listing of what lies directly below a folder, by its delimiter,
so the chunks below are never listed: TensorStore's own lists have none, and a bucket of
volumes has millions of keys. S3 is listed by boto3, which finds the account and signs; Google's
buckets by its JSON API, where anyone may. Web servers cannot be listed.
"""

import fnmatch
import json
import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import Any

import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import access, numeric_order, places
from nisbjax.store.places import Address
from nisbjax.store.request_errors import is_forbidden, said_of, unreachable

_WILD = re.compile(r"[*[]")  # what follows a question mark may be a signature
_MOST_PAGES = 100  # of 1,000 names, in one listing
_GOOGLE = "https://storage.googleapis.com"
_BY_NAME = "name each volume, with commas between them"


def is_pattern(text: str) -> bool:
    """Whether an address has stars or brackets in it."""
    return _WILD.search(text) is not None


def matching(text: str) -> list[str]:
    """The folders that match an address with a pattern in it, in numeric order.

    Args:
      text: of an address; a part of the path after the last star need not be there below
        every folder that matches.

    Raises:
      InputError: a web server, a bucket that may not be listed, or a folder of too many names.
    """
    found = places.parse(text)
    if found.server.startswith("http"):
        raise InputError(
            f"{found} is a pattern, and web servers are not listed; {_BY_NAME}"
        )
    if _WILD.search(found.server):
        raise InputError(f"{found} has a pattern for a bucket; wanted its name")
    matched = [Address(found.server, "")]
    for part in found.key.split("/"):
        if is_pattern(part):
            matched = [inner for outer in matched for inner in _below(outer, part)]
        else:
            matched = [outer / part for outer in matched]
    return sorted(map(str, matched), key=numeric_order.key)


def _below(folder: Address, pattern: str) -> list[Address]:
    """The folders directly below one whose names match."""
    start = pattern[: _wild_at(pattern)]
    key = f"{folder.key}/{start}" if folder.key else start
    list_names = _names_of_s3 if folder.server.startswith("s3:") else _names_of_gs
    try:
        names = {key.rstrip("/").rpartition("/")[2] for key in list_names(folder, key)}
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 (of boto3 and TensorStore, with many types)
        if is_forbidden(error):
            raise InputError(
                f"{folder} may not be listed ({said_of(error)}); {_BY_NAME}, or, of S3, "
                "the account with --config.remote.profile"
            ) from None
        raise unreachable(str(folder), error) from None
    return [folder / name for name in names if fnmatch.fnmatchcase(name, pattern)]


def _wild_at(pattern: str) -> int:
    found = _WILD.search(pattern)
    return len(pattern) if found is None else found.start()


def _names_of_s3(folder: Address, prefix: str) -> Iterator[str]:
    try:
        import boto3
        import botocore
        from botocore.config import Config
    except ImportError:
        raise InputError(
            f"{folder} is to be listed for a pattern, which needs boto3; pip install "
            f"'nisbjax[s3]', or {_BY_NAME}"
        ) from None
    asked = access.WAY.access
    config = Config(
        signature_version=botocore.UNSIGNED if asked.anonymous else None,
        connect_timeout=asked.timeout_s,
        read_timeout=asked.timeout_s,
        retries={"max_attempts": asked.retries, "mode": "standard"},
    )
    session = boto3.Session(profile_name=asked.profile or None)
    client = session.client(
        "s3",
        endpoint_url=asked.endpoint or None,
        region_name=asked.region or ("us-east-1" if asked.endpoint else None),
        config=config,
    )
    bucket = folder.server.partition("://")[2]
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=prefix, Delimiter="/"
    )
    for page in _bounded(folder, pages):
        yield from (each["Prefix"] for each in page.get("CommonPrefixes", ()))


def _names_of_gs(folder: Address, prefix: str) -> Iterator[str]:
    for page in _bounded(folder, _pages_of_gs(folder, prefix)):
        yield from page.get("prefixes", ())


def _pages_of_gs(folder: Address, prefix: str) -> Iterator[dict[str, Any]]:
    server = os.environ.get("TENSORSTORE_GCS_HTTP_URL", _GOOGLE).rstrip("/")
    bucket = folder.server.partition("://")[2]
    asked = {"delimiter": "/", "prefix": prefix, "fields": "prefixes,nextPageToken"}
    while True:
        query = urllib.parse.urlencode(asked)
        url = f"{server}/storage/v1/b/{bucket}/o?{query}"
        spec = {"driver": "http", "base_url": url, "path": ""}
        store = ts.KvStore.open(spec, context=access.context()).result()
        answer = store.read("").result()
        if answer.state != "value":
            raise InputError(f"{folder.server} is no bucket; check its name")
        page = json.loads(answer.value)
        yield page
        if not page.get("nextPageToken"):
            return
        asked["pageToken"] = page["nextPageToken"]


def _bounded(folder: Address, pages: Iterable[Any]) -> Iterator[Any]:
    for number, page in enumerate(pages):
        if number == _MOST_PAGES:
            raise InputError(
                f"{folder} holds more than {_MOST_PAGES},000 names, as a folder of chunks "
                f"does; write more of the pattern, or {_BY_NAME}"
            )
        yield page
