"""Lines as a person reads them: short, dated once a day, warnings told apart."""

import io
import logging
import os
import re
import sys
import time

import pytest
from absl import logging as absl_logging

from nisbjax.console import log_lines

NOON = 1_795_780_805.0  # 2026-11-27 12:00:05 UTC


def record(text, *values, level=logging.INFO, at=NOON):
    made = logging.LogRecord("absl", level, "a.py", 1, text, values, None)
    made.created = at
    return made


def formatter(width=0):
    return log_lines.LineFormatter(lambda: width, time.gmtime)


def test_a_line_is_the_time_and_the_message_and_the_first_of_a_day_has_its_date():
    lines = formatter()
    assert lines.format(record("%d boxes", 3)) == "2026-11-27 12:00:05 3 boxes"
    assert lines.format(record("wrote it")) == "12:00:05 wrote it"
    # 12 h - 5 s later the day is another
    tomorrow = record("on", at=NOON + 12 * 3600 - 5)
    assert lines.format(tomorrow) == "2026-11-28 00:00:00 on"


@pytest.mark.parametrize(
    ("level", "begin"), [(logging.WARNING, "warning: "), (logging.ERROR, "error: ")]
)
def test_a_warning_says_so(level, begin):
    assert formatter().format(record("x", level=level)).endswith(f"05 {begin}x")


def test_one_of_several_processes_has_its_number(monkeypatch):
    monkeypatch.setattr(log_lines, "_number", [])
    log_lines.number_process(3)
    assert formatter().format(record("x")).endswith("12:00:05 [3] x")


def test_further_lines_stand_below_the_message():
    lines = formatter()
    lines.format(record("first"))
    assert lines.format(record("a\nb")) == "12:00:05 a\n         b"


def test_a_terminals_lines_break_between_words_and_paths_stay_whole():
    lines = formatter(30)
    lines.format(record("first"))
    path = "outputs/a/path/that/is/longer/than/a/line"
    #                                    12:00:05 a line of words that
    said = lines.format(record("a line of words that breaks %s", path)).split("\n")
    assert said == [
        "12:00:05 a line of words that",
        "         breaks",
        f"         {path}",
    ]


def test_paths_below_the_working_directory_are_told_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = os.getcwd()
    assert log_lines.from_here(f"wrote {here}/run/a.h5") == "wrote run/a.h5"
    assert log_lines.from_here(f"--workdir={here}/run") == "--workdir=run"
    # Another folder that begins or ends alike keeps its name, and so does the folder itself.
    for other in (f"{here}_2/run", f"/mnt{here}/run", f"in {here}"):
        assert log_lines.from_here(other) == other


def test_libraries_show_their_warnings_alone(monkeypatch, tmp_path):
    root, own = logging.getLogger(), os.path.dirname(__file__)
    monkeypatch.setattr(root, "handlers", [])
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    absl_logger = logging.getLogger("absl")
    before, levels = absl_logging.get_verbosity(), (root.level, absl_logger.level)
    try:
        log_lines.show(own)
        absl_logging.info("ours")
        for level in (logging.INFO, logging.WARNING):
            other = record("theirs %d", level, level=level)
            root.handle(other)
    finally:
        absl_logging.set_verbosity(before)
        root.setLevel(levels[0])
        absl_logger.setLevel(levels[1])
    said = [
        re.sub(r"^.*\d\d:\d\d:\d\d ", "", x) for x in written.getvalue().split("\n")
    ]
    assert said == ["ours", "warning: theirs 30", ""]
