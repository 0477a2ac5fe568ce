"""Results in the order of the boxes, whichever finishes first."""

import socket
import threading

import pytest

from nisbjax.errors import InputError
from nisbjax.parallel import cluster
from nisbjax.parallel.cluster import map_boxes


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


@pytest.fixture
def distributed():
    """Dask, which waits half a second for what answers after 30 as a rule."""
    distributed = pytest.importorskip("distributed")
    import dask

    with dask.config.set({"distributed.comm.timeouts.connect": "500ms"}):
        yield distributed


@pytest.fixture
def port():
    """Of this machine, bound but not listened at."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


def refusal(address):
    with pytest.raises(InputError) as error:
        next(map_boxes(abs, [1], kind="dask", address=address))
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(f"no Dask scheduler answers at {address} (")
    assert "wanted its tcp://host:port or scheduler file: is it started" in text
    return text


def test_a_port_at_which_nobody_listens(distributed, port):
    address = f"tcp://127.0.0.1:{port.getsockname()[1]}"
    assert f"(Timed out trying to connect to {address} after 0.5 s" in refusal(address)
    with pytest.raises(InputError, match="TLS expects a `ssl_context`"):
        next(map_boxes(abs, [1], kind="dask", address=address.replace("tcp", "tls")))


def test_a_port_at_which_somebody_else_listens(distributed, port):
    port.listen()
    address = f"tcp://127.0.0.1:{port.getsockname()[1]}"
    assert "(something listens and says nothing in 0.5 s)" in refusal(address)


def test_a_scheduler_file_without_an_address(distributed, tmp_path):
    assert "(no such file)" in refusal("no.json")
    file = tmp_path / "scheduler.json"
    file.write_text("{}")
    assert "address is missing; wanted text)" in refusal(str(file))
    file.write_text("half a f")
    assert "is not valid JSON (Expecting value: line 1" in refusal(str(file))
    for word in ("5", '{"address": 5}', '{"address": null}'):
        file.write_text(word)
        assert "wanted" in refusal(str(file))


def test_a_scheduler_to_which_no_worker_comes(distributed, monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE_SECONDS", 0.2)
    with distributed.LocalCluster(
        n_workers=0, processes=False, protocol="tcp", dashboard_address=None
    ) as empty:
        address = empty.scheduler_address
        with pytest.raises(
            InputError,
            match=f"0 of 3 workers came to {address} in 0.2 s; start them, or set "
            "--config.cluster.workers",
        ):
            next(map_boxes(abs, [1], kind="dask", address=address, workers=3))


class _Codecs(Exception):
    """As imagecodecs' of LZW."""

    def __reduce__(self):
        raise TypeError("no default __reduce__ due to non-trivial __cinit__")


def _refuse(box):
    try:
        raise _Codecs("in C")
    except _Codecs:
        error = InputError(f"box {box} is damaged; write it again")
        error.add_note("in the middle")
        raise error from None


def test_a_refusal_of_a_worker_arrives_as_it_is(distributed):
    with distributed.LocalCluster(
        n_workers=1, processes=False, protocol="tcp", dashboard_address=None
    ) as one:
        results = map_boxes(_refuse, [7], kind="dask", address=one.scheduler_address)
        with pytest.raises(InputError) as error:
            next(results)
    assert str(error.value) == "box 7 is damaged; write it again"
    assert error.value.__notes__ == ["in the middle"]
