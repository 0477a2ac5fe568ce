"""What libraries and the system say when a disk, a file or a device fails, as one line.

TensorStore raises ValueErrors that begin with a status word, HDF5 OSErrors without number
or name, XLA RuntimeErrors: here they get the place, the system's word and what to do. A
stage that knows more (which box, which key) adds it with `error.add_note`. Errors of our
own programs (a TypeError, a KeyError) are not explained, and keep their traceback. PyTC
and BANIS show the libraries' tracebacks in every case.
"""

import errno
import os
import re
import traceback
from collections.abc import Iterator

from nisbjax.errors import InputError

# Status words of TensorStore, OCDBT and gRPC (absl::StatusCode).
_STATUS = re.compile(
    r"^(?:CANCELLED|UNKNOWN|INVALID_ARGUMENT|DEADLINE_EXCEEDED|NOT_FOUND|ALREADY_EXISTS"
    r"|PERMISSION_DENIED|RESOURCE_EXHAUSTED|FAILED_PRECONDITION|ABORTED|OUT_OF_RANGE"
    r"|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS|UNAUTHENTICATED): "
)
_SYSTEM_NUMBER = re.compile(r"\[os_error_code='(\d+)'\]")
_LOCAL_FILE = re.compile(r'local file "((?:[^"\\]|\\.)*)"')
_SPEC = re.compile(r" ?\[(?:tensorstore_spec|source locations)[=:].*", re.DOTALL)
_HDF5 = re.compile(r"(?:\[Errno \d+\] )?(Unable to|Can't|Unspecified error in) .*\(")
_HDF5_NAME = re.compile(r"name = '([^']*)'")

# What they came after is no reason for them.
_DEFECTS = (TypeError, AttributeError, NameError, LookupError, ArithmeticError)
_ROOM = "free space there, or name another place, and start again"
_ACCESS = "name another place, or ask for the right to use it, and start again"
_ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "raise the largest size of a file (ulimit -f), and start again",
    errno.EROFS: _ACCESS,
    errno.EACCES: _ACCESS,
    errno.EPERM: _ACCESS,
    errno.EMFILE: "raise the number of open files (ulimit -n), and start again",
    errno.ENFILE: "close other programs that hold files, and start again",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ELOOP: "its links point at one another; name the file itself",
    errno.ENOENT: "is it named rightly, and is its disk mounted?",
    errno.EIO: "the disk or the network reports a fault; start again once it is mended",
    errno.ESTALE: "its network file system was mounted again; start again",
    errno.ETIMEDOUT: "its network file system does not answer; start again later",
    errno.ENOMEM: "give the process more memory",
}
_OTHER_ADVICE = "name another path, or free space and create the folder there"
_MEMORY = (
    "lower decode.memory_gb, predict.batch_per_device, train.batch_per_device or the "
    "window, or take a machine of more memory"
)


def explain(error: BaseException) -> str | None:
    """One line about a failure of the outside: what, where, and what to do.

    Args:
      error: as it was caught; its causes and notes are looked at, too.

    Returns:
      The line, or None for an error of our own programs.
    """
    for each in _causes(error):
        line = _of_one(each)
        if line is not None:
            notes = [n for n in getattr(each, "__notes__", ()) if _is_ours(n)]
            return " ".join("; ".join([line, *notes]).split())
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and the members of groups."""
    seen: set[int] = set()
    left = [error]
    while left:
        each = left.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        left += getattr(each, "exceptions", ())
        before = each.__cause__
        if before is None and not isinstance(each, _DEFECTS):
            before = None if each.__suppress_context__ else each.__context__
        if isinstance(before, BaseException):
            left.append(before)


def _of_one(error: BaseException) -> str | None:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        return _of_system(error)
    name, text = type(error).__name__, str(error)
    module = type(error).__module__.partition(".")[0]
    if isinstance(error, MemoryError):
        return f"out of memory ({text or 'no more could be had'}); {_MEMORY}"
    if name in ("XlaRuntimeError", "JaxRuntimeError") and _is_out_of_memory(text):
        return f"the device is out of memory ({_first_line(text)}); {_MEMORY}"
    if isinstance(error, RuntimeError | AssertionError | ValueError):
        line = _of_device(error, text)
        if line is not None:
            return line
    if isinstance(error, RuntimeError | KeyError | ValueError) and _is_hdf5(text):
        return (
            f"an HDF5 file cannot be used: {_first_line(text)}; copy or make it again"
        )
    if isinstance(error, ValueError | RuntimeError) and _is_tensorstore(text):
        return _of_tensorstore(text)
    if name in ("BrokenProcessPool", "KilledWorker", "BrokenExecutor"):
        return (
            f"a process that worked for this one has died ({_first_line(text)}), perhaps "
            f"for want of memory; {_MEMORY}, and start again"
        )
    if module == "sqlite3" and name in ("OperationalError", "DatabaseError"):
        return f"the database of the study failed ({text}); {_OTHER_ADVICE}"
    return None


def _of_system(error: OSError) -> str | None:
    text = str(error)
    if error.errno is None:
        if _is_hdf5(text):
            return f"an HDF5 file cannot be used: {_first_line(text)}; copy or make it again"
        if isinstance(error, TimeoutError | ConnectionError):
            return f"another process does not answer ({text}); is it there?"
        known = type(error) is not OSError or error.filename is not None
        return f"{text or type(error).__name__}; {_OTHER_ADVICE}" if known else None
    name = error.filename
    if name is None:
        found = _HDF5_NAME.search(text)
        name = found[1] if found else "a file or folder of this command"
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    second = f" and {error.filename2}" if error.filename2 is not None else ""
    return _system_line(f"{name}{second}", error.errno)


def _system_line(name: str, number: int) -> str:
    return f"{name}: {os.strerror(number)}; {_ADVICE.get(number, _OTHER_ADVICE)}"


def _is_tensorstore(text: str) -> bool:
    inside = "local file" in text or "tensorstore_spec" in text
    return (
        inside
        and bool(_STATUS.match(text) or _SYSTEM_NUMBER.search(text))
        or (text.startswith("Error opening ") and inside)
    )


def _of_tensorstore(text: str) -> str:
    number, place = _SYSTEM_NUMBER.search(text), _LOCAL_FILE.search(text)
    name = place[1] if place else "an array"
    if number:
        return _system_line(name, int(number[1]))
    said = _STATUS.sub("", _SPEC.sub("", text))
    said = said[said.rfind(f'"{name}":') :].removeprefix(f'"{name}":').strip()
    if text.startswith("NOT_FOUND"):
        return f"{name} is not there; was it moved or removed meanwhile?"
    return (
        f"{name} cannot be read or written ({said[:200]}); it is damaged or of a kind that "
        "is not known: copy it again, or run the stage that wrote it"
    )


def _is_hdf5(text: str) -> bool:
    return bool(_HDF5.match(text.strip("'\"")))


def _is_out_of_memory(text: str) -> bool:
    return text.startswith("RESOURCE_EXHAUSTED") or "Out of memory" in text


def _of_device(error: BaseException, text: str) -> str | None:
    """What JAX says of a platform or setting that the environment names."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1].filename.replace(os.sep, "/") if frames else ""
    if text.startswith("Unable to initialize backend") or (
        isinstance(error, AssertionError) and last.endswith("jax/_src/xla_bridge.py")
    ):
        platform = os.environ.get("JAX_PLATFORMS", "")
        said = f" ({_first_line(text)})" if text else ""
        return (
            f"JAX finds no device of JAX_PLATFORMS={platform!r}{said}; unset it, or name "
            "platforms that are here, such as cpu"
        )
    if isinstance(error, ValueError) and last.endswith("jax/_src/config.py"):
        return f"a variable of the environment is not JAX's ({text}); unset it"
    return None


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:300] if lines else "no reason is given"


def _is_ours(note: str) -> bool:
    """Notes of stages are one line; JAX's are paragraphs about its own frames."""
    return "\n" not in note and not note.startswith("---")
