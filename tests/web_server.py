"""A web server of this machine that serves a folder, and fails where a path says so.

It speaks as much of Google's storage as is read: its folders are buckets.
"""

import contextlib
import http.server
import json
import pathlib
import threading
import time
import urllib.parse
from collections.abc import Iterator


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
        elif "Range" in self.headers and fault != "whole":
            self._answer_in_part()
        else:
            self.path = self.path.removeprefix("/whole")
            super().do_GET()

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


@contextlib.contextmanager
def serving(folder: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """Its address, and the paths that were asked for so far."""

    def answers(*arguments):
        return _Answers(*arguments, directory=str(folder))

    server = _Server(("127.0.0.1", 0), answers)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.asked
    finally:
        server.shutdown()
        server.server_close()
