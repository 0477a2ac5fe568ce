"""A server of this machine that speaks S3: moto's, in a process of its own."""

import contextlib
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest

BUCKET = "bucket"
SECRET = "wJalrXUtnFEMI/not/a/real/secret"
ACCOUNT = {"AWS_ACCESS_KEY_ID": "AKIANOTAREALACCOUNT0", "AWS_SECRET_ACCESS_KEY": SECRET}
_START = """
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
server.start()
print("port %d ." % server.get_host_and_port()[1], flush=True)
server._thread.join()
"""


@contextlib.contextmanager
def serving_s3(**environment: str) -> Iterator[str]:
    """Its endpoint, with an empty bucket.

    Args:
      **environment: of the server; `INITIAL_NO_AUTH_ACTION_COUNT` lets it ask for rights
        after so many requests.
    """
    command = [sys.executable, "-c", _START]
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = None
        for line in process.stdout:
            found = re.match(r"port (\d+) \.", line)
            if found:
                break
        if found is None:
            pytest.skip("no S3 server starts here; pip install 'nisbjax[servers]'")
        endpoint = f"http://127.0.0.1:{found[1]}"
        request = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request).close()
        yield endpoint
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
