"""Which errors are a disk's, and in which words."""

import asyncio
import logging
import sys
import types

import pytest

from nisbjax.checkpoint import orbax_errors


@pytest.mark.parametrize(
    "error, outside, words",
    [
        (OSError(28, "No space left on device"), True, "No space left on device"),
        (ValueError("DATA_LOSS: cut\n  here"), True, "DATA_LOSS: cut here"),
        (
            ValueError("NOT_FOUND: a file [os_error_code='2']"),
            True,
            "No such file or directory",
        ),
        (ValueError("a shape does not fit"), False, "a shape does not fit"),
    ],
)
def test_errors_of_the_outside(error, outside, words):
    assert orbax_errors.is_of_outside(error) == outside
    assert orbax_errors.words(error) == words


@pytest.mark.parametrize("path, said", [("orbax/handler.py", 0), ("ours.py", 1)])
def test_what_orbax_raises_is_not_logged_too(path, said):
    logger, lines = logging.getLogger("asyncio"), []
    handler = logging.Handler()
    handler.emit = lines.append
    logger.addHandler(handler)
    try:
        raise ValueError("full")
    except ValueError:
        record = logger.makeRecord(
            "asyncio", logging.ERROR, f"/lib/{path}", 1, "", (), sys.exc_info()
        )
    logger.handle(record)
    logger.removeHandler(handler)
    assert len(lines) == said


@pytest.mark.parametrize("text, said", [("NOT_FOUND: a file", 0), ("another", 1)])
def test_a_write_that_nobody_waits_for_is_not_logged(text, said, caplog):
    orbax_errors.say_once()
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    future.set_exception(ValueError(text))
    del future  # asyncio says now that its exception was never retrieved
    loop.close()
    assert len(caplog.records) == said


def test_only_a_closed_loop_is_ignored(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    orbax_errors.ignore_closed_loops()
    for text in ("Event loop is closed", "another"):
        sys.unraisablehook(types.SimpleNamespace(exc_value=RuntimeError(text)))
    assert [str(lost.exc_value) for lost in seen] == ["another"]
