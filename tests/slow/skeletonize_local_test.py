"""Skeletons by processes are those of one thread, byte for byte."""

import pytest
from small_labels import asked, config_of, fork, saved

from nisbjax.skeletonize import stage

pytest.importorskip("kimimaro")
pytest.importorskip("distributed")
pytestmark = pytest.mark.slow


def test_two_processes_write_what_one_thread_does(tmp_path):
    labels, files = saved(tmp_path, fork()), []
    for name, kind in (("one", "threads"), ("two", "local")):
        config = config_of(box_shape=(16, 16, 16))
        config.cluster.update({"kind": kind, "workers": 2})
        job = asked(labels, tmp_path / f"{name}.pkl", config)
        stage.run(job)
        files.append([job.output.with_suffix(s).read_bytes() for s in (".pkl", ".npz")])
    assert files[0] == files[1]
