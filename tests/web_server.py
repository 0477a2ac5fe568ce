"""A web server of this machine that serves a folder, and fails where a path says so.

It speaks as much of S3 and of Google's storage as is asked of them: its folders are buckets.
"""

import contextlib
import http.server
import json
import pathlib
import threading
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any


class _Answers(http.server.SimpleHTTPRequestHandler):
    """`/403/x` is forbidden, `/503/x` busy, `/cut/x` ends early, `/slow/x` waits.

    All else is the file of that name, or what follows a byte; `/whole/x` is all of x always.
    """

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        fault = self.path.split("/")[1]
        if fault in ("403", "503"):
            self.send_response(int(fault))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"{")
            self.close_connection = True
        elif fault == "slow":
            time.sleep(1.5)
            self.close_connection = True
        elif fault == "storage":
            self._answer_as_google()
        elif "list-type=2" in self.path:
            self._list_as_s3()
        elif "Range" in self.headers and fault != "whole":
            self._answer_in_part()
        else:
            self.path = self.path.removeprefix("/whole")
            super().do_GET()

    def do_PUT(self) -> None:
        """Writes an object of S3; says 503 or 403 where `faults` says it of its number.

        -1 says nothing, for longer than a test's time-out.
        """
        server: Any = self.server
        content = self.rfile.read(int(self.headers["Content-Length"]))
        server.written.append(self.path)
        fault = server.faults.get(len(server.written), 0)
        if fault < 0:
            time.sleep(3)
            self.close_connection = True
            return
        if not fault:
            path = pathlib.Path(self.translate_path(self.path))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.send_response(fault or 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def end_headers(self) -> None:
        self.send_header("ETag", '"1"')
        super().end_headers()

    def _list_as_s3(self) -> None:
        """All objects of a bucket that begin with a prefix."""
        url = urllib.parse.urlsplit(self.path)
        bucket = pathlib.Path(self.directory, url.path.strip("/"))
        prefix = dict(urllib.parse.parse_qsl(url.query))["prefix"]
        keys = sorted(
            p.relative_to(bucket).as_posix() for p in bucket.rglob("*") if p.is_file()
        )
        listed = "".join(
            f"<Contents><Key>{key}</Key><Size>1</Size></Contents>"
            for key in keys
            if key.startswith(prefix)
        )
        content = (
            "<ListBucketResult><IsTruncated>false</IsTruncated>"
            f"<KeyCount>{len(keys)}</KeyCount>{listed}</ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _answer_in_part(self) -> None:
        """What follows the first byte that is asked for."""
        path = pathlib.Path(self.translate_path(self.path))
        content = path.read_bytes() if path.is_file() else None
        first = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
        found = content is not None and first < len(content)
        part = content[first:] if found else b""
        self.send_response(404 if content is None else 206 if found else 416)
        if found:
            said = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", said)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def _answer_as_google(self) -> None:
        """`/storage/v1/b/BUCKET/o/KEY` is an object, `/o?prefix=P&delimiter=/` a list."""
        url = urllib.parse.urlsplit(self.path)
        bucket, key = url.path.split("/", 4)[4].split("/o", 1)
        bucket, key = pathlib.Path(self.directory, bucket), urllib.parse.unquote(key)
        if key:
            path = bucket / key[1:]
            content = path.read_bytes() if path.is_file() else None
        else:
            asked = dict(urllib.parse.parse_qsl(url.query))
            above, _, start = asked["prefix"].rpartition("/")
            names = sorted(f"{p.name}/" for p in (bucket / above).glob(f"{start}*/"))
            first = int(asked.get("pageToken", 0))  # pages of two
            page: dict = {
                "prefixes": [f"{above}/{n}" for n in names[first : first + 2]]
            }
            if names[first + 2 :]:
                page["nextPageToken"] = str(first + 2)
            content = json.dumps(page).encode()
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.send_header("x-goog-generation", "1")
        self.end_headers()
        self.wfile.write(content or b"")

    def list_directory(self, path):
        self.send_error(404)

    def log_message(self, *args) -> None:
        """Says nothing."""


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.asked: list[str] = []
        self.written: list[str] = []
        self.faults: dict[int, int] = {}


@contextlib.contextmanager
def serving_s3(folder: pathlib.Path) -> Iterator[tuple[str, dict[int, int]]]:
    """As `serving`; what to answer to the objects of some numbers, from 1, as they come."""
    with _started(folder) as server:
        yield f"http://127.0.0.1:{server.server_port}", server.faults


@contextlib.contextmanager
def serving(folder: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """Its address, and the paths that were asked for so far."""
    with _started(folder) as server:
        yield f"http://127.0.0.1:{server.server_port}", server.asked


@contextlib.contextmanager
def _started(folder: pathlib.Path) -> Iterator[_Server]:
    def answers(*arguments):
        return _Answers(*arguments, directory=str(folder))

    server = _Server(("127.0.0.1", 0), answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
