"""Results in the order of the boxes, whichever finishes first."""

import threading

import pytest

from nisbjax.cluster import map_boxes
from nisbjax.errors import InputError


def test_order_is_that_of_the_boxes_whoever_is_first():
    second_done = threading.Event()

    def work(box):
        if box == 0:  # waits for its successor
            assert second_done.wait(10)
        if box == 1:
            second_done.set()
        return box * box

    assert list(map_boxes(work, range(9), workers=2)) == [i * i for i in range(9)]


def test_nothing_to_do():
    assert list(map_boxes(lambda box: box, [])) == []


def test_results_do_not_pile_up():
    started = []
    results = map_boxes(lambda box: started.append(box), range(50), workers=2)
    next(results)
    results.close()
    assert len(started) <= 2 * 2  # twice the workers


def test_the_first_error_is_raised_and_ends_the_work():
    done = []

    def work(box):
        if box == 3:
            raise ValueError("box 3 cannot be read")
        done.append(box)
        return box

    results = []
    with pytest.raises(ValueError, match="box 3 cannot be read"):
        results.extend(map_boxes(work, range(100), workers=2))
    assert results == [0, 1, 2]
    assert max(done) < 3 + 2 * 2 + 1


def test_other_kinds_are_refused():
    with pytest.raises(
        InputError, match="cluster.kind is 'ray'; wanted one of threads, local, dask"
    ):
        next(map_boxes(abs, [1], kind="ray"))
    with pytest.raises(
        InputError, match="cluster.kind=dask needs --config.cluster.add"
    ):
        next(map_boxes(abs, [1], kind="dask"))
    pytest.importorskip("distributed")
    with pytest.raises(
        InputError, match=r"no Dask scheduler answers at no.json \(no such file\)"
    ):
        next(map_boxes(abs, [1], kind="dask", address="no.json"))
