"""What SIGTERM, SIGUSR1 and Ctrl-C do: end a process in order, or be noted by a loop.

SLURM sends SIGTERM at a job's end and, where asked, SIGUSR1 some minutes before. Either
ends every mode with one line and status 143; training, once it runs, first saves. Python
answers a signal only between two steps of its own, so one that comes while XLA compiles
would wait for minutes: a thread then ends the process. Ctrl-C is a KeyboardInterrupt as
ever, but inside an import, whose unwinding crashes some modules, and in training, which saves;
a second one ends that at once. PyTC and BANIS leave this to Lightning, which knows of
training alone.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

STOPPED = 143  # 128 + SIGTERM
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
KEYBOARD = "stopped by the keyboard; start again to resume"
NUMBERS = (signal.SIGTERM, signal.SIGUSR1)
_GRACE_SECONDS = 5.0  # for Python to answer

_interrupted = threading.Event()  # by Ctrl-C
_answered = threading.Event()  # by the main thread: it unwinds
_armed = threading.Event()  # while a signal is to end the process


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """A signal unwinds what is inside the `with`, and the process ends with status 143.

    One line says which it was. Off the main thread it does nothing.

    Raises:
      SystemExit: with status 143, after a signal, whatever else was raised on its way.
      KeyboardInterrupt: likewise after Ctrl-C.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main:
        yield
        return
    if _armed.is_set():
        with _as_it_came():
            yield
        return
    _answered.clear()
    _interrupted.clear()
    before: dict[Any, Any] = {n: signal.signal(n, _unwind) for n in NUMBERS}
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as of `nohup`
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _interrupt)
    hook, sys.unraisablehook = sys.unraisablehook, _end_if_lost
    try:
        with _watched(), _as_it_came():
            yield
    finally:
        sys.unraisablehook = hook
        _restore(before)


@contextlib.contextmanager
def _as_it_came() -> Iterator[None]:
    """Undoes what a library made of the end of a process on its way."""
    try:
        yield
    except BaseException as error:
        if _answered.is_set():
            raise SystemExit(STOPPED) from None
        if _interrupted.is_set() and not isinstance(error, SystemExit):
            raise KeyboardInterrupt from None
        raise


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """A thread ends the process where the main thread does not answer a signal in time."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    # Written to by Python's own handler in C, whatever the main thread is doing.
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(reader,), daemon=True)
    thread.start()
    _armed.set()
    try:
        yield
    finally:
        _armed.clear()
        signal.set_wakeup_fd(before)
        writer.close()  # ends the thread
        thread.join()
        reader.close()


def _watch(reader: socket.socket) -> None:
    while came := reader.recv(64):
        for number in set(came) & {*NUMBERS, signal.SIGINT}:
            answered = _interrupted if number == signal.SIGINT else _answered
            late = _armed.is_set() and not answered.wait(_GRACE_SECONDS)
            if late and _armed.is_set():
                _end_at_once(number)


def end_at_once() -> None:
    """From now on a signal ends the process without unwinding.

    For one of several processes, which would wait for the others on its way out, and while
    modules are imported, before `ending`.
    """
    for number in NUMBERS:
        signal.signal(number, _end_at_once)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end_at_once)


class Noted:
    """Notes signals, Ctrl-C too, instead of dying from them, inside a `with`.

    Attributes:
      received: whether one came.
      status: that the process then ends with.
    """

    def __init__(self):
        self.received = False
        self.status = STOPPED
        self._before: dict[Any, Any] = {}
        self._was_armed = False

    def __enter__(self):
        self._was_armed = _armed.is_set()
        _armed.clear()
        self._before = {n: signal.signal(n, self._note) for n in NUMBERS}
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as of `nohup`
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, _: Any) -> None:
        if number == signal.SIGINT:
            if self.status == INTERRUPTED:
                _end_at_once(number)
            self.status = INTERRUPTED
        self.received = True

    def __exit__(self, *_):
        _restore(self._before)
        if self._was_armed:
            _armed.set()


def _imports(frame: Any) -> bool:
    """Extension modules that are cut short crash; nothing is to be undone yet."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _interrupt(number: int, frame: Any) -> NoReturn:
    if _imports(frame):
        _end_at_once(number)
    _interrupted.set()
    raise KeyboardInterrupt


def _unwind(number: int, frame: Any) -> NoReturn:
    if _imports(frame):
        _end_at_once(number)
    if not _answered.is_set():
        _say(number)
    _answered.set()
    raise SystemExit(STOPPED)


def _end_at_once(number: int, _: Any = None) -> NoReturn:
    _say(number)
    os._exit(INTERRUPTED if number == signal.SIGINT else STOPPED)


def _end_if_lost(lost: Any) -> None:
    """Ends the process where its end was raised inside what swallows exceptions."""
    if _answered.is_set() and isinstance(lost.exc_value, SystemExit):
        os._exit(STOPPED)
    if _interrupted.is_set() and isinstance(lost.exc_value, KeyboardInterrupt):
        _end_at_once(signal.SIGINT)
    sys.__unraisablehook__(lost)


def _say(number: int) -> None:
    name = signal.Signals(number).name
    said = f"stopped by {name}; start the same command again to go on"
    line = f"nisbjax: {KEYBOARD if number == signal.SIGINT else said}\n"
    # Not by `print`: the signal may have come in the middle of one.
    with contextlib.suppress(OSError):
        os.write(2, line.encode())


def _restore(handlers: dict[Any, Any]) -> None:
    for number, handler in handlers.items():
        # None: not Python's, but a library's, which is not known.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _forget() -> None:
    """In a process that was forked: its signals are its own."""
    if signal.getsignal(signal.SIGTERM) in (_unwind, _end_at_once):
        signal.set_wakeup_fd(-1)
        _armed.clear()
        for number in NUMBERS:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) in (_interrupt, _end_at_once):
        signal.signal(signal.SIGINT, signal.default_int_handler)


os.register_at_fork(after_in_child=_forget)
