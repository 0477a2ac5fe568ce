"""Labels to files of skeletons: whole against boxes, resumed, kept, refused."""

import dataclasses
import pickle

import numpy as np
import pytest
import scipy.ndimage
from small_labels import VOXEL, asked, config_of, fork, rod, saved, two_touching

from nisbjax import skeletons
from nisbjax.errors import InputError
from nisbjax.evaluate import nerl
from nisbjax.skeletonize import stage
from nisbjax.skeletons import swc

pytest.importorskip("kimimaro")


def made(tmp_path, labels, name="skeleton.pkl", region="", **changes):
    """The facts, and the skeletons that lie in the file."""
    config = config_of(**changes)
    job = asked(saved(tmp_path, labels), tmp_path / name, config, region)
    return stage.run(job), skeletons.load(job.output, voxel_size_nm=VOXEL)


def test_a_rod_and_its_files(tmp_path):
    facts, found = made(tmp_path, rod(), also=("swc", "precomputed"))
    # 40 voxels from face to face: 39 edges of 10 nm
    wanted = {"labels": 1, "dust": 0, "without_edge": 0, "in_pieces": 0, "nodes": 40}
    assert facts == wanted | {"length_um": 0.39}
    assert found.edge_lengths_nm.sum() == pytest.approx(390)
    graph = pickle.loads((tmp_path / "skeleton.pkl").read_bytes())
    assert graph.nodes[0] == {
        "id": 7,
        "index_position": (0, 4, 4),
        "nm_position": (0.0, 40.0, 40.0),
    }
    for name in ("skeleton.npz", "skeleton_swc", "skeleton_precomputed"):
        same = skeletons.load(tmp_path / name, voxel_size_nm=VOXEL)
        assert sorted(same.index_position.tolist()) == found.index_position.tolist()
    left = sorted(p.name for p in (tmp_path / ".skeleton.boxes").iterdir())
    assert left == [".manifest.jsonl"]


@pytest.mark.parametrize("box_shape", [(13, 256, 256), (16, 8, 8)])
@pytest.mark.parametrize("labels", [rod(), fork(), two_touching()], ids="rfT")
def test_boxes_join_to_what_the_whole_has(tmp_path, labels, box_shape):
    """A path goes through the middle of the label's patch on each plane that is shared.

    A plane along a rod takes the path 2 voxels aside and back, by diagonal steps, in each of
    its three boxes: 3 * 4 * (sqrt(2) - 1) = 5 voxels of 47, a ninth. At the rod's end both
    boxes have an end of their own, 7 voxels apart from where the paths part: a tick. So the
    lengths differ by less than a fifth.
    """
    whole_facts, whole = made(tmp_path, labels, "whole.pkl")
    facts, found = made(
        tmp_path, labels, "boxes.pkl", box_shape=box_shape, tick_nm=80.0
    )
    for one in (facts, whole_facts):
        assert one["in_pieces"] == one["without_edge"] == 0
        assert one["labels"] == len(np.unique(labels)) - (0 in labels)
    for label in np.unique(found.node_id):
        lengths = [
            each.edge_lengths_nm[each.node_id[each.edges[:, 0]] == label].sum()
            for each in (whole, found)
        ]
        assert lengths[1] == pytest.approx(lengths[0], rel=0.2)
    # a tree each, and every node inside its label
    ids = len(np.unique(found.node_id))
    assert len(found.edges) == len(found.node_id) - ids
    assert (labels[tuple(found.index_position.T)] == found.node_id).all()


def test_a_sponge_in_boxes_becomes_one_tree(tmp_path):
    """Smooth noise above its mean: 27 boxes, and loops that share their ways."""
    noise = np.random.default_rng(0).normal(size=(32, 32, 32))
    labels = (scipy.ndimage.gaussian_filter(noise, 1.6) > 0).astype(np.uint8)
    facts, found = made(tmp_path, labels, box_shape=(13, 13, 13), also=("swc",))
    assert facts["labels"] == 1
    again = skeletons.load(tmp_path / "skeleton_swc", voxel_size_nm=VOXEL)
    assert len(again.edges) == len(found.edges)  # which SWC would refuse with a loop


def test_labels_score_perfectly_against_their_own_skeletons(tmp_path):
    labels = two_touching()
    labels[20:23] = 0  # both are cut in two, which no score may mind
    facts, found = made(tmp_path, labels, box_shape=(16, 16, 16))
    assert facts["in_pieces"] == 2
    score = nerl.score(found, labels[tuple(found.index_position.T)].astype(np.int64))
    assert score["nerl"] == 1.0 and score["coverage"] == 0


def test_a_region_and_dust(tmp_path):
    labels = two_touching()
    labels[40:, 9, 4] = 11  # 8 voxels
    facts, found = made(tmp_path, labels, region="10:48,0:14,0:9", dust_voxels=9)
    assert (facts["labels"], facts["dust"]) == (2, 1)
    assert found.index_position[:, 0].min() == 10
    with pytest.raises(
        InputError, match="the box 10:49,0:14,0:9 is not inside .*labels.n"
    ):
        made(tmp_path, labels, "other.pkl", region="10:49,0:14,0:9")


def test_a_stage_that_was_stopped_goes_on(tmp_path, monkeypatch):
    labels, box_shape = fork(), (16, 16, 16)
    made(tmp_path, labels, "undisturbed.pkl", box_shape=box_shape)
    real, seen = stage.save, []

    def save(found, path):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(path)
        real(found, path)

    monkeypatch.setattr(stage, "save", save)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, labels, box_shape=box_shape)
    assert not (tmp_path / "skeleton.pkl").exists()
    # one of the three is damaged meanwhile, and is made again
    with open(seen[1], "r+b") as file:
        file.write(b"damage")
    before = list(seen)
    again = []
    monkeypatch.setattr(stage, "save", lambda f, p: (again.append(p), real(f, p)))
    made(tmp_path, labels, box_shape=box_shape)
    assert before[1] in again and not {before[0], before[2]} & set(again)
    same = [(tmp_path / f"{n}.npz").read_bytes() for n in ("skeleton", "undisturbed")]
    assert same[0] == same[1]


def test_what_is_there_is_kept_and_mended(tmp_path, monkeypatch):
    facts, _ = made(tmp_path, rod())
    path = tmp_path / "skeleton.pkl"
    content = path.read_bytes()
    monkeypatch.setattr(stage, "BoxSkeletonizer", None)  # no box is needed any more
    assert made(tmp_path, rod())[0] == facts
    path.unlink()
    assert made(tmp_path, rod(), also=("swc",))[0] == facts
    assert path.read_bytes() == content and (tmp_path / "skeleton_swc/7.swc").exists()


def test_other_keys_are_refused_until_the_file_is_removed(tmp_path):
    made(tmp_path, rod(), also=("swc",))
    with pytest.raises(
        InputError, match="skeleton.pkl belongs to a run with other skel"
    ):
        made(tmp_path, rod(), const_nm=60.0)
    with pytest.raises(
        InputError, match="belongs to a run with other labels .labels: "
    ):
        made(tmp_path, rod(label=8))
    (tmp_path / "skeleton.pkl").unlink()
    _, found = made(tmp_path, rod(label=8), also=("swc",))
    assert set(found.node_id.tolist()) == {8}
    assert [p.name for p in (tmp_path / "skeleton_swc").iterdir()] == ["8.swc"]


def test_what_others_put_into_a_folder_stays(tmp_path):
    """Before a second format, and where other labels make the skeletons again."""
    made(tmp_path, rod(), also=("swc",))
    notes = [tmp_path / "skeleton_swc" / name for name in ("notes.txt", "70.swc")]
    for path in notes:
        path.write_text("dear to somebody")
    (tmp_path / "skeleton_swc" / "7.swc").unlink()  # which is made again
    made(tmp_path, rod(), also=("swc", "precomputed"))
    (tmp_path / "skeleton.pkl").unlink()
    made(tmp_path, rod(label=8), also=("swc",))
    assert [path.read_text() for path in notes] == ["dear to somebody"] * 2
    left = sorted(p.name for p in (tmp_path / "skeleton_swc").iterdir())
    assert left == ["70.swc", "8.swc", "notes.txt"]
    assert not (tmp_path / "skeleton_precomputed").exists()
    # the folder is ours even if it was not asked for in between
    (tmp_path / "skeleton.pkl").unlink()
    made(tmp_path, rod(label=9))
    made(tmp_path, rod(label=9), also=("swc",))
    left = sorted(p.name for p in (tmp_path / "skeleton_swc").iterdir())
    assert left == ["70.swc", "9.swc", "notes.txt"]


def test_files_of_a_format_that_was_stopped_go_with_other_labels(tmp_path, monkeypatch):
    real = swc.write

    def stopped(found, folder):
        real(found, folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(swc, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, rod(), also=("swc",))
    monkeypatch.setattr(swc, "write", real)
    (tmp_path / "skeleton.pkl").unlink()
    made(tmp_path, rod(label=8), also=("swc",))
    assert [p.name for p in (tmp_path / "skeleton_swc").iterdir()] == ["8.swc"]


@pytest.mark.parametrize("name", ["skeleton.pkl", "skeleton_swc/7.swc"])
def test_what_was_edited_by_hand_is_not_made_again(tmp_path, name):
    made(tmp_path, rod(), also=("swc",))
    (tmp_path / name).write_text("proofread")
    message = f"{name.split('/')[0]} was changed since --mode=skeletonize made it; move"
    with pytest.raises(InputError, match=message):
        made(tmp_path, rod(), also=("swc",))
    assert (tmp_path / name).read_text() == "proofread"


@pytest.mark.parametrize("name", ["skeleton.pkl", "skeleton.npz", "skeleton_swc"])
def test_what_others_made_is_not_replaced(tmp_path, name):
    (tmp_path / name).write_text("dear to somebody")
    with pytest.raises(
        InputError, match=f"{name} is there, and --mode=skeletonize did n"
    ):
        made(tmp_path, rod(), also=("swc",))
    assert (tmp_path / name).read_text() == "dear to somebody"
    assert not (tmp_path / ".skeleton.boxes").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"memory_gb": 1e-5},
            "a box of 3240 voxels takes 0.00015 GB, and skeletonize.mem",
        ),
        (
            {"dust_voxels": 2000},
            "no label of 2000 voxels or more with a skeleton .1 of fe",
        ),
    ],
)
def test_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        made(tmp_path, rod(), **changes)
    assert not (tmp_path / "skeleton.pkl").exists()


def test_checks_touch_nothing(tmp_path):
    job = asked(saved(tmp_path, rod()), tmp_path / "skeleton.pkl")
    stage.check(job)
    with pytest.raises(InputError, match="no volume at .*absent"):
        stage.check(dataclasses.replace(job, labels=str(tmp_path / "absent")))
    assert [p.name for p in tmp_path.iterdir()] == ["labels.npy"]
