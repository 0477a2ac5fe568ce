"""Modes of one stage alone, run again over what they wrote with another value of each key.

A segmentation is refused by the name of the key; reports, masks and scores are made anew and
say so. A key that determines nothing of an artifact leaves its bytes as they are.
"""

import logging
import os
import pathlib
import pickle
import re
import runpy
import shutil

import h5py
import networkx as nx
import numpy as np
import pytest

from nisbjax.artifacts import Run, VolumeDir
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.keys import determines, ranges
from nisbjax.modes import alone, segmentation
from nisbjax.store.volume import create_zarr, open_affinities

VALUES = pathlib.Path(__file__).parents[1] / "keys" / "values.py"
OTHER = runpy.run_path(str(VALUES))["OTHER"]
# Files, and who takes part, stay as they are; another origin of the threshold is another one.
KEPT = (
    "decode.input",
    "decode.output",
    "decode.affinity_mask",
    "decode.threshold_from",
)
KEPT += ("qc.input", "qc.image", "qc.report", "mask.report", "mask.output")
KEPT += ("evaluate.segmentation", "evaluate.skeleton", "evaluate.label", "cluster.kind")
KEYS = sorted(set(ranges.RANGES) - set(KEPT))
SHAPE = (12, 10, 24)


def changed(config, *keys):
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict({key: OTHER[key] for key in keys})
    return config


def determining(artifact):
    return [key for key in KEYS if artifact in determines.artifacts_of(key)]


def others(artifact):
    return [key for key in KEYS if artifact not in determines.artifacts_of(key)]


def bytes_of(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def wrongly_kept(config, artifact, make):
    """Keys that do not change what they determine; and one phrase if any other key does."""
    before = make(config)
    assert make(config) == before
    keys = determining(artifact)
    found = [key for key in keys if make(changed(config, key)) == before]
    if make(changed(config, *others(artifact))) != before:
        found.append("one of the others")
    return found


@pytest.fixture
def config(tmp_path):
    """Affinities that get worse towards both ends, their image, labels and skeletons."""
    draw = np.random.default_rng(0)
    affinities = draw.random((3, *SHAPE)).astype(np.float16)
    affinities[..., :5] *= np.linspace(0.2, 1, 5)
    affinities[..., -5:] *= np.linspace(1, 0.2, 5)
    image = draw.integers(60, 200, (*SHAPE, 1), np.uint8)
    for name, values, axes in (("raw", affinities, "cxyz"), ("img", image, "xyzc")):
        chunks = tuple(8 if axis in "xyz" else 1 for axis in axes)
        keys = {"shape": values.shape, "dtype": values.dtype, "chunks": chunks}
        create_zarr(tmp_path / f"{name}.zarr", **keys, axes=axes).write(..., values)
    config = base_config()
    config.qc.input = config.decode.input = str(tmp_path / "raw.zarr")
    config.qc.image = str(tmp_path / "img.zarr")
    config.decode.affinity_mask = ""
    config.qc.update(
        {"border_width": 1, "refine_window": 4, "k_edge": 5, "z_stride": 1}
    )
    return config


def test_a_segmentation_is_refused_by_the_key(tmp_path, config):
    config.qc.input = ""
    config.decode.method = "grow"  # which takes every key
    config.decode.min_seed = 5
    config.decode.output = str(tmp_path / "out" / "labels.zarr")
    run = Run(tmp_path / "out")
    alone.decode(config, run, "")
    before = bytes_of(tmp_path)
    # Those of other methods are idle.
    keys = set(determines.facts(config, "segmentation")) - {"decode.method"}
    assert {"decode.threshold", "decode.grow_margin", "decode.mask_edges"} <= keys
    for key in sorted(keys):
        with pytest.raises(InputError, match=f"other .*{re.escape(key)}.*, now "):
            alone.decode(changed(config, key), run, "")
        assert bytes_of(tmp_path) == before, key
    # The word for where edges are stored, of a file that does not say it.
    with pytest.raises(InputError, match=r"data\.edge_stored_at: 'source', now 'dest"):
        alone.decode(changed(config, "data.edge_stored_at"), run, "")
    rest = [key for key in others("segmentation") if key != "data.edge_stored_at"]
    alone.decode(changed(config, *rest), run, "")
    assert bytes_of(tmp_path) == before


def test_a_segmentation_is_replaced_where_that_is_asked_for(tmp_path, config, caplog):
    config.qc.input = ""
    run = Run(tmp_path / "run")
    config.decode.output = str(tmp_path / "labels.zarr")
    config.decode.threshold = 0.5
    path = alone.decode(config, run, "")
    config.decode.threshold = 0.99
    with pytest.raises(
        InputError,
        match="belongs to a run with other decode.thresh.* add --redo=decode to replace it, "
        "or name another with --config.decode.output=PATH",
    ):
        alone.decode(config, run, "")
    with caplog.at_level(logging.INFO):
        assert alone.decode(config, run, "", redo=("decode",)) == path
    said = caplog.messages
    first, then = f"--redo=decode replaces {path}", f"replacing {path}, as --redo asks"
    assert said.index(first) < said.index(then)
    afresh = changed(config)
    afresh.decode.output = str(tmp_path / "afresh.zarr")
    alone.decode(afresh, run, "")
    chunks = [
        {p.name: p.read_bytes() for p in folder.glob("[0-9]*")}
        for folder in (path, tmp_path / "afresh.zarr")
    ]
    assert chunks[0] == chunks[1]
    # What it is decoded from is another stage's.
    config.decode.output = config.decode.input
    before = bytes_of(tmp_path)
    with pytest.raises(InputError, match="raw.zarr was not written by this stage"):
        alone.decode(config, run, "", redo=("decode",))
    assert bytes_of(tmp_path) == before


def test_two_files_in_one_folder_stay_apart(tmp_path, config, monkeypatch):
    """Reports, masks and segmentations of both, and a decode without a mask beside."""
    from nisbjax.qc import pictures

    monkeypatch.setattr(pictures, "draw_all", lambda *_: ())
    shutil.copytree(tmp_path / "raw.zarr", tmp_path / "b.zarr")
    config.decode.affinity_mask = "auto"
    config.qc.input = ""
    run = Run(tmp_path)
    made = []
    for name in ("raw", "b"):
        config.decode.input = str(tmp_path / f"{name}.zarr")
        made.append(alone.decode(config, run, ""))
    before = bytes_of(tmp_path)
    config.decode.affinity_mask = ""
    made.append(alone.decode(config, run, ""))
    end = "x1_ch0-1-2_affinity_cc_0.75"
    names = [f"decoded_raw_{end}.zarr", f"decoded_b_{end}.zarr"]
    assert [p.name for p in made] == [*names, f"decoded_b_{end}_nomask.zarr"]
    for name in ("raw", "b"):
        report = tmp_path / f"{name}_check_aff_report.md"
        assert f"{name}.zarr" in report.read_text()
        assert (tmp_path / f"{name}_affinity_mask.h5").is_file()
    after = bytes_of(tmp_path)
    assert {path: after[path] for path in before} == before
    # One more of the name, of another format.
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["main"] = open_affinities(tmp_path / "b.zarr").read()
    config.decode.input = str(tmp_path / "b.h5")
    assert alone.decode(config, run, "").name == f"decoded_b_h5_{end}_nomask.zarr"
    config.decode.input = str(tmp_path / "b.zarr")
    # In another folder their own folder's name tells them apart, too.
    elsewhere = alone.decode(config, Run(tmp_path / "run"), "")
    assert elsewhere.name == f"decoded_{tmp_path.name}_b_{end}_nomask.zarr"


def test_a_runs_own_file_keeps_a_runs_names(tmp_path, config):
    config.qc.input = ""
    own = tmp_path / "seed6" / "raw_x1_ch0-1-2.zarr"
    shutil.copytree(tmp_path / "raw.zarr", own)
    config.decode.input = str(own)
    path = alone.decode(config, Run(own.parent), "")
    assert path.name == "decoded_x1_ch0-1-2_affinity_cc_0.75_nomask.zarr"


def test_a_segmentation_of_joined_fragments_is_refused_by_the_key(tmp_path, config):
    config.qc.input = ""
    config.decode.method = "chain3"
    config.decode.joins = ("average", "absorb", "quantile")
    config.decode.output = str(tmp_path / "out" / "labels.zarr")
    run = Run(tmp_path / "out")
    alone.decode(config, run, "")
    before = bytes_of(tmp_path)
    keys = set(determines.facts(config, "segmentation")) - {"decode.method"}
    wanted = {"joins", "faces", "short", "long", "absorb_below", "absorb_least"}
    wanted |= {"quantile", "quantile_threshold"}
    assert {f"decode.{name}" for name in wanted} <= keys
    for key in sorted(keys):
        with pytest.raises(InputError, match=f"other .*{re.escape(key)}.*, now "):
            alone.decode(changed(config, key), run, "")
        assert bytes_of(tmp_path) == before, key


def test_reports_and_masks_are_made_anew(tmp_path, config, monkeypatch):
    """The mask goes where its report says, over the one before."""
    from nisbjax.qc import pictures

    monkeypatch.setattr(pictures, "draw_all", lambda *_: ())
    run = Run(tmp_path / "out")

    config.mask.report = str(VolumeDir(run.path, f"{tmp_path.name}_raw").qc_report)

    def make(chosen):
        report = alone.qc(chosen, run, "")
        mask = alone.mask(chosen, run, "")
        return report.read_text(), mask.read_bytes()

    assert wrongly_kept(config, "report", make) == []


def test_scores_are_made_anew(tmp_path, config):
    """Two neurites of twelve nodes, and labels of which some have the code of nothing."""
    labels = np.ones(SHAPE, np.uint16)
    labels[6:, 5:] = 2
    np.save(tmp_path / "labels.npy", labels)
    labels[:, :2] = 65535
    np.save(tmp_path / "truth.npy", labels)
    graph = nx.Graph()
    for neurite, y in ((1, 2), (2, 7)):
        for x in range(12):
            node, nm = (neurite, x), (9.0 * x, 9.0 * y, 36.0)
            graph.add_node(node, id=neurite, index_position=(x, y, 3), nm_position=nm)
            if x:
                graph.add_edge((neurite, x - 1), node)
    (tmp_path / "skeleton.pkl").write_bytes(pickle.dumps(graph))
    config.evaluate.segmentation = str(tmp_path / "labels.npy")
    config.evaluate.skeleton = str(tmp_path / "skeleton.pkl")
    config.evaluate.label = str(tmp_path / "truth.npy")
    config.evaluate.metrics = ("nerl", "adapted_rand")
    run = Run(tmp_path / "out")

    def make(chosen):
        found = alone.evaluate(chosen, run, "")
        return {k: v for k, v in found.items() if k not in ("config", "timestamp")}

    assert wrongly_kept(config, "scores", make) == []


def test_the_segmentation_of_the_keys_is_scored_before_a_newer_one(tmp_path, caplog):
    config = base_config()
    place, run = VolumeDir(tmp_path), Run(tmp_path)
    with pytest.raises(InputError, match="no segmentation in .*; run --mode=decode"):
        alone._decoded(config, run, "", place)
    paths = {}
    for age, threshold in ((20, 0.3), (10, 0.5)):
        config.decode.threshold = threshold
        paths[threshold] = path = segmentation.path_in(config, place)
        path.mkdir()
        os.utime(path, (1e9 - age, 1e9 - age))
    for threshold in (0.3, 0.5):
        config.decode.threshold = threshold
        assert alone._decoded(config, run, "", place) == paths[threshold]
    config.decode.threshold = 0.7
    caplog.set_level("INFO")
    assert alone._decoded(config, run, "", place) == paths[0.5]
    assert "0.7.zarr is not there; the newest is scored" in caplog.text
