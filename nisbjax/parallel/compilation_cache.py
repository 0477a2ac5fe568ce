"""What XLA compiled for a GPU, kept in the user's cache for the next start.

JAX's persistent compilation cache, which is off by itself: a network takes minutes to compile
and seconds to load. `--compilation_cache=DIR` names another folder, "" none;
JAX_COMPILATION_CACHE_DIR wins over the default. PyTC and BANIS compile nothing.

On a CPU it is on where a folder is named, not by itself. XLA compiles for the very features of
a CPU, and what it loads is not safe: on some machines it complains of its own programs at every
load, and programs of another machine may end in an illegal instruction (jax issue 38445).
Folders of the user's are often on several machines' disks, so ours is one for each kind of CPU.
"""

import contextlib
import functools
import hashlib
import os
import pathlib
import platform
import threading
import time
from collections.abc import Iterator

from absl import logging

from nisbjax.parallel import user_cache

_KEPT_S = 30 * 86400  # programs that nobody loads any more
_TOLD_S = 2.0  # compilations that are worth a line
_COMPILED = "/jax/core/compile/backend_compile_duration"
_SAVED = "/jax/compilation_cache/compile_time_saved_sec"

_FOLDER = "jax_compilation_cache_dir"
_LEAST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"

_asked: list[str | None] = [None]  # --compilation_cache; None where it is not given
_begun: list[bool] = []
_of_thread = threading.local()


def ask(folder: str | None) -> None:
    """Remembers what the command line says, before any mode imports JAX.

    Args:
      folder: where programs are kept; "" for nowhere, None for the default.
    """
    _asked[0] = folder


def begin() -> None:
    """Turns the cache on, once; call it after the processes of a run were joined.

    A folder that cannot be written is a warning: everything is compiled then.
    """
    import jax

    if _begun:
        return
    _begun.append(True)
    asked = _asked[0]
    folder = getattr(jax.config, _FOLDER)
    if asked == "":
        jax.config.update(_FOLDER, None)
        return
    if asked or not folder:
        if asked is None and jax.default_backend() == "cpu":
            return
        place = pathlib.Path(asked).absolute() if asked else _default()
        if not _writable(place):
            return
        jax.config.update(_FOLDER, str(place))
        if _LEAST not in os.environ:
            jax.config.update(_LEAST.lower(), 0.1)  # by itself programs of a second
    _listen()


@functools.cache
def _listen() -> None:
    import jax

    jax.monitoring.register_event_duration_secs_listener(_tell)


def _default() -> pathlib.Path:
    """The user's, for this kind of CPU: the host of a GPU compiles for its own, too."""
    folder = user_cache.folder("xla") / _machine()
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            used = max(entry.stat().st_atime, entry.stat().st_mtime)
            if entry.is_file() and time.time() - used > _KEPT_S:
                entry.unlink()
    return folder


@contextlib.contextmanager
def compiling(what: str, seconds: str) -> Iterator[None]:
    """Says that something is being compiled, and each minute that it still is.

    Args:
      what: `the training step`.
      seconds: how long that takes about, where nothing is kept of an earlier start.
    """
    import jax

    from nisbjax.console import progress, quantities

    folder = getattr(jax.config, _FOLDER)
    kept = (
        "kept for next time"
        if folder
        else "not kept (--compilation_cache=DIR keeps it)"
    )
    logging.info("compiling %s: about %s, %s", what, seconds, kept)
    began, done = time.monotonic(), threading.Event()

    def tell() -> None:
        while not done.wait(progress.EVERY_SECONDS):
            passed = quantities.duration(time.monotonic() - began)
            logging.info("still compiling %s, since %s", what, passed)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _machine() -> str:
    """A word for a CPU's features."""
    lines = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        said = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        for key in ("model name", "flags", "Features"):
            lines += [line for line in said if line.startswith(key)][:1]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _writable(folder: pathlib.Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / f".nisbjax-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        logging.warning(
            "compiled programs are not kept: %s cannot be written (%s); name another with "
            "--compilation_cache",
            folder,
            error.strerror,
        )
        return False
    return True


def _tell(event: str, duration_secs: float, **kwargs: str | int) -> None:
    """A line for each program that takes long, or would have."""
    if event == _SAVED:
        _of_thread.saved = duration_secs
    if event != _COMPILED:
        return
    saved, _of_thread.saved = getattr(_of_thread, "saved", None), None
    name = str(kwargs.get("fun_name", "a program"))
    name = name.removeprefix("jit(").removesuffix(")")  # JAX's own word
    if saved is not None and saved + duration_secs >= _TOLD_S:
        logging.info(
            "loaded %s in %.1f s; compiling it had taken %.1f s",
            *(name, duration_secs, saved + duration_secs),
        )
    elif saved is None and duration_secs >= _TOLD_S:
        logging.info("compiled %s in %.1f s, for later starts too", name, duration_secs)
