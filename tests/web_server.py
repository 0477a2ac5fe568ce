"""A web server of this machine that serves a folder, and fails where a path says so."""

import contextlib
import http.server
import pathlib
import threading
import time
from collections.abc import Iterator


class _Answers(http.server.SimpleHTTPRequestHandler):
    """`/403/x` is forbidden, `/503/x` busy, `/cut/x` ends early, `/slow/x` waits; `/x` is x."""

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
        else:
            super().do_GET()

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
