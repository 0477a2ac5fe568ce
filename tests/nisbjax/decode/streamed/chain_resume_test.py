"""An interrupted chain goes on, and what was lost or damaged meanwhile is made again."""

import dataclasses
import os
import pathlib

import pytest
from absl import logging
from small_chains import labels_at, noise, written

from nisbjax.decode.chain import ChainParameters
from nisbjax.decode.streamed import fragments, growth, relabeling, shaving
from nisbjax.decode.streamed.chain import chain_volume
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.errors import InputError

PARAMETERS = ChainParameters(anchor=4, low=0.3, shave=1)
STEPS = {
    "fragments": fragments.MutexDecoder,
    "growth": growth.GrowthDecoder,
    "shave": shaving.ShavingDecoder,
    "relabel": relabeling.Relabeler,
}


class Killed(Exception):
    pass


@pytest.fixture
def chain(tmp_path):
    """Decodes an array on disk into another by 2 x 2 boxes that share its chunks."""
    affinities = written(tmp_path / "raw.zarr", noise(9, (20, 12, 14)), 8)

    def run(name, parameters=PARAMETERS):
        output = labels_at(tmp_path / name, (20, 12, 14), 8)
        schedule = Schedule(box_shape=(12, 8, 14))
        chain_volume(
            affinities, output, parameters=parameters, memory_gb=1.0, schedule=schedule
        )
        path = pathlib.Path(output.source)
        assert not (path / ".scratch").exists()
        chunks = {
            p.name: p.read_bytes() for p in path.iterdir() if p.suffix != ".jsonl"
        }
        return chunks, output.read()

    run.folder = tmp_path
    return run


def interrupt(chain, monkeypatch, step, after):
    """Dies at a box of a step; returns the folder of what lies between the steps."""
    calls, owner = [], STEPS[step]
    call = owner.__call__

    def dies(self, index):
        calls.append(index)
        if len(calls) > after:
            raise Killed
        return call(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(owner, "__call__", dies)
        with pytest.raises(Killed):
            chain("labels.zarr")
    return chain.folder / "labels.zarr" / ".scratch"


@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_chain_goes_on(chain, monkeypatch, step):
    expected, labels = chain("undisturbed.zarr")
    assert labels.max() > 1
    interrupt(chain, monkeypatch, step, 1)
    again = dict.fromkeys(STEPS, 0)
    for name, owner in STEPS.items():

        def counted(self, index, name=name, call=owner.__call__):
            again[name] += 1
            return call(self, index)

        monkeypatch.setattr(owner, "__call__", counted)
    assert chain("labels.zarr")[0] == expected
    # Of four boxes one is done, and perhaps the next that was under way.
    done = list(STEPS)[: list(STEPS).index(step)]
    assert [again[name] for name in done] == [0] * len(done)
    assert 1 <= again[step] <= 3
    # And finished is finished.
    again.update(dict.fromkeys(again, 0))
    assert chain("labels.zarr")[0] == expected
    assert not any(again.values())


def _flip(path):
    """A bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1 << 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    "step, harm, what, said",
    [
        ("growth", _flip, "fragments/3.npz", "records of 1 boxes"),
        ("growth", _flip, "fragments/provisional.zarr/0.0.0", "labels of 1 boxes"),
        ("growth", os.unlink, "fragments/provisional.zarr/0.0.0", "labels of 1 boxes"),
        ("shave", _flip, "growth/provisional.zarr/0.0.0", "labels of 1 boxes"),
        ("relabel", os.unlink, "growth/3.npz", "records of 1 boxes"),
        ("relabel", os.unlink, "shaving/3.npz", "records of 1 boxes"),
        (
            "relabel",
            _flip,
            "shaving/provisional.zarr/0.0.0",
            "labels of box 0:12,0:8,0:14",
        ),
        ("relabel", os.unlink, "fragments/3.components.npy", ""),
    ],
)
def test_what_is_lost_or_damaged_between_two_attempts_is_made_again(
    chain, monkeypatch, caplog, step, harm, what, said
):
    expected, _ = chain("undisturbed.zarr")
    harm(interrupt(chain, monkeypatch, step, 0) / what)
    logging.get_absl_logger().propagate = True
    with caplog.at_level("WARNING"):
        assert chain("labels.zarr")[0] == expected
    assert said in caplog.text


def test_other_parameters_do_not_go_on(chain):
    chain("labels.zarr")
    with pytest.raises(InputError, match=r"other attract .*0.2, now 0.3"):
        chain("labels.zarr", dataclasses.replace(PARAMETERS, attract=0.3))
