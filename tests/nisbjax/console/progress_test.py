"""A line a minute off a terminal, by a clock of ours; bars on one."""

import logging

import pytest

from nisbjax.console.progress import Progress


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [r.getMessage() for r in caplog.records]


def counted(clock, count=490, **options):
    return Progress("predict", count, "windows", clock=clock, **options)


def test_a_line_a_minute_has_share_rate_and_time_left(said):
    clock = Clock()
    with counted(clock, terminal=False) as progress:
        for _ in range(120):  # one in half a second
            clock.now += 0.5
            progress.update()
        assert said() == [
            # 120 in 60 s; 370 are left: 185 s
            "predict: 120 of 490 windows (24%), 2 a second, 3 min left"
        ]
        clock.now += 59
        progress.update()
        assert len(said()) == 1
        clock.now += 1
        progress.update()
        assert len(said()) == 2


def test_what_an_earlier_start_did_is_no_part_of_the_rate(said):
    clock = Clock()
    with counted(clock, 100, done=90, terminal=False) as progress:
        clock.now += 120
        progress.update(2)
    # 2 in 120 s: 60 s each, 8 are left
    assert said() == ["predict: 92 of 100 windows (92%), 60 s each, 8 min left"]


def test_the_end_and_another_line_need_none(said):
    clock = Clock()
    with counted(clock, 3, terminal=False) as progress:
        assert progress.seconds_left is None
        clock.now += 50
        progress.update()
        progress.told()
        clock.now += 50
        progress.update()
        assert progress.seconds_left == 50
        clock.now += 100
        progress.update()  # the last
    assert said() == []


def test_without_a_name_nothing_is_said(said, capsys):
    clock = Clock()
    for terminal in (True, False):
        with Progress("", 9, "boxes", clock=clock, terminal=terminal) as progress:
            clock.now += 100
            progress.update()
    assert said() == [] and capsys.readouterr().err == ""


def test_a_terminal_has_a_bar_and_no_lines(said, capsys):
    clock = Clock()
    with counted(clock, terminal=True) as progress:
        clock.now += 100
        progress.update(490)
        progress.note("loss 0.5")
    assert said() == []
    assert "predict: " in capsys.readouterr().err
