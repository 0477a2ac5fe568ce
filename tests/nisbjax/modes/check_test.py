"""Mode check: a good set is ready, each slip is named, several at once are all named.

A volume of 16 x 12 x 12 voxels with three bright neurites along x, 4, 4 and 2 voxels thick
in y, and dark planes at y = 4 and y = 9; the network is linear.
"""

import pickle
import re

import networkx as nx
import numpy as np
import pytest
from matplotlib.image import imread
from validated_runs import save

from nisbjax import estimates, launch
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.modes import check_crops
from nisbjax.store.volume import create_zarr

pytestmark = pytest.mark.usefixtures("linear_network")

SHAPE = (16, 12, 12)
ROWS = ((1, 1), (2, 6), (3, 10))  # neurite, y of its skeleton
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[:, :4], LABELS[:, 5:9], LABELS[:, 10:] = 1, 2, 3
IMAGE = np.where(LABELS, 200, 20).astype(np.uint8)
IMAGE[::2] += 1


def write(path, values, **attributes):
    create_zarr(
        path,
        shape=values.shape,
        dtype=values.dtype,
        chunks=values.shape,
        axes="xyzc"[: values.ndim],
        attributes=attributes,
    ).write(..., values)


def write_skeleton(path, order=(0, 1, 2), shift=0):
    graph = nx.Graph()
    for neurite, y in ROWS:
        for x in range(10):
            at = np.array((x + shift, y, 3))[list(order)]
            nm = tuple(9.0 * float(a) for a in at)
            place = (neurite, x)
            index = tuple(map(int, at))
            graph.add_node(place, id=neurite, index_position=index, nm_position=nm)
            if x:
                graph.add_edge((neurite, x - 1), place)
    path.write_bytes(pickle.dumps(graph))


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    write(folder / "em.zarr", IMAGE)
    write(folder / "labels.zarr", LABELS)
    write_skeleton(folder / "skeleton.pkl")
    return folder


@pytest.fixture
def config(root):
    c = base_config()
    c.name = "mystack"
    c.data.kind = "files"
    c.data.root = str(root)
    c.data.voxel_size_nm = (9.0, 9.0, 9.0)
    boxes = ("0:8,0:12,0:12", "8:12,0:12,0:12", "12:16,0:12,0:12")
    for split, box in zip(("train", "val", "test"), boxes, strict=True):
        c.data[split].image, c.data[split].label = "em.zarr", "labels.zarr"
        c.data[split].box = box
    c.data.val.box = "0:8,0:12,0:12"  # where the skeletons are
    c.data.val.skeleton, c.data.test.skeleton = "skeleton.pkl", ""
    c.data.test.box = "8:16,0:12,0:12"
    c.data.patch = (4, 6, 4)
    c.data.offsets = ((1, 0, 0), (0, 1, 0), (0, 0, 3))
    c.data.erosion = (0, 1, 0)
    c.augment.profile = "none"  # which takes long to compile
    c.model.out_channels = 3
    c.train.batch_per_device = 1
    c.train.precision = "fp32"
    c.train.val_every = 0
    c.predict.window = (4, 6, 4)
    c.predict.batch_per_device = 1
    c.decode.affinity_mask = ""
    c.evaluate.metrics = ("voi",)
    return c


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr(check_crops, "draw", lambda path, *_: path)


def checked(config, tmp_path, checkpoint=""):
    """The report, whatever comes of it."""
    try:
        launch.run_mode("check", config, str(tmp_path / "run"), checkpoint)
    except InputError:
        pass
    return (tmp_path / "run/check/check.txt").read_text()


def tree(folder):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}


def test_a_validation_volume_without_labels_is_tuned_by_its_skeletons(
    config, tmp_path, undrawn
):
    config.data.val.label = ""
    assert checked(config, tmp_path).splitlines()[-1] == "ready"


def test_a_good_set_is_ready(config, root, tmp_path, capsys):
    before = tree(root)
    found = launch.run_mode("check", config, str(tmp_path / "run"))
    assert (found.wrong, found.warnings) == ([], [])
    assert capsys.readouterr().out.splitlines()[-1] == "ready"
    assert tree(root) == before  # nothing is written to data
    names = sorted(p.name for p in (tmp_path / "run").rglob("*"))
    assert names == ["check", "check.png", "check.txt"]
    # Three rows of five panels, 3.3 and 2.9 inches of 110 pixels.
    height, width, _ = imread(tmp_path / "run/check/check.png").shape
    assert (height, width) == (3 * 363, 5 * 319)


def stripes(config, root):
    """Neurites 2 voxels thick that touch: an erosion of 2 leaves none of them."""
    rows = np.arange(12) // 2 + 1
    write(root / "striped.zarr", np.tile(rows[None, :, None], (16, 1, 12)))
    config.data.train.label = "striped.zarr"
    config.data.erosion = (0, 2, 0)


def other_labels(values):
    def change(config, root):
        write(root / "other.zarr", values)
        config.data.train.label = "other.zarr"

    return change


def other_image(values):
    def change(config, root):
        write(root / "other.zarr", values)
        config.data.train.image = "other.zarr"

    return change


def keys(**changes):
    def change(config, root):
        for key, value in changes.items():
            section, _, name = key.rpartition("__")
            config.update_from_flattened_dict(
                {f"{section.replace('__', '.')}.{name}": value}
            )

    return change


def skeleton(**how):
    def change(config, root):
        write_skeleton(root / "other.pkl", **how)
        config.data.val.skeleton = "other.pkl"

    return change


SLIPS = {
    "a key out of its range": (
        keys(decode__memory_gb=-1.0),
        r"decode.memory_gb is -1.0; wanted",
    ),
    "no image": (
        keys(data__train__image="gone.zarr"),
        r"no volume matches .*gone.zarr; check data.root and the pattern",
    ),
    "labels of another shape": (
        other_labels(np.ones((9, 9, 9), np.uint8)),
        r"other.zarr has shape \(9, 9, 9\) but .*em.zarr has \(16, 12, 12\)",
    ),
    "a box outside": (
        keys(data__train__box="0:99,0:12,0:12"),
        r"wanted a box inside it, not 0:99",
    ),
    "erosion that leaves nothing": (
        stripes,
        r"data.erosion=\(0, 2, 0\) leaves nothing of the labels in the first 3 crops",
    ),
    "empty labels": (
        other_labels(np.zeros(SHAPE, np.uint8)),
        r"32 crops of shape \(5, 7, 7\) hold no labeled object",
    ),
    "labels that nobody vouches for": (
        other_labels(np.full(SHAPE, -1, np.int32)),
        r"32 crops of shape \(5, 7, 7\) hold no labeled object",
    ),
    "labels of one object": (
        other_labels(np.ones(SHAPE, np.uint8)),
        r"all labels are one object without background, so that every edge is true",
    ),
    "labels in which each voxel is another": (
        other_labels(np.arange(1, 2305, dtype=np.uint16).reshape(SHAPE)),
        r"data.erosion=\(0, 1, 0\) leaves nothing|joins two voxels of one label",
    ),
    "an image of one grey value": (
        other_image(np.full(SHAPE, 7, np.uint8)),
        r"other.zarr \[.*\] holds the grey value 7 alone in 3 crops; wanted an image",
    ),
    "an image of 16 bit": (
        other_image(IMAGE.astype(np.uint16)),
        r"divide_255 wants uint8; set data.normalize to min_max",
    ),
    "channels": (
        keys(model__in_channels=2),
        r"has 1 channels, model.in_channels is 2; wanted the same",
    ),
    "offsets": (
        keys(model__out_channels=6),
        r"data.offsets names 3 edges, model.out_channels is 6",
    ),
    "a batch that devices cannot share": (
        keys(train__global_batch=3),
        r"the global batch is 3 on 4 devices; wanted a multiple",
    ),
    "days on CPUs": (keys(train__cpu_hours=0.0), r"training MedNeXt-L, 200000 steps"),
    "no skeleton there": (
        keys(data__val__skeleton="gone.pkl"),
        r"no skeleton at .*gone.pkl; check data.root and data.val.skeleton",
    ),
    "a skeleton that leaves the volume": (
        skeleton(shift=50),
        r"30 of 30 nodes of .*other.pkl .* lie outside .*labels.zarr",
    ),
    "a skeleton outside its box": (
        keys(data__val__box="11:16,0:12,0:12"),
        r"has no edge in data.val.box, 11:16,0:12,0:12; choose another box",
    ),
    "channels that are not predicted": (
        keys(predict__channels=(5,)),
        r"predict.channels is \(5,\) for a network of 3 output channels",
    ),
    "windows too large for memory": (
        keys(predict__window=(256, 256, 256), predict__memory_gb=0.05),
        r"predict.window is \(256, 256, 256\), whose weights alone take",
    ),
    "a region beyond the box": (
        keys(predict__roi="0:16,0:12,0:12"),
        r"predict.roi is 0:16,0:12,0:12, which is not inside data.test.box",
    ),
    "a mask that is not there": (
        keys(decode__affinity_mask="gone.h5"),
        r"gone.h5",
    ),
    "no address of a cluster": (
        keys(cluster__kind="dask"),
        r"cluster.kind=dask needs",
    ),
    "scores without skeletons": (
        keys(evaluate__metrics=("nerl",)),
        r"evaluate.metrics asks for nerl, but there is no skeleton",
    ),
    "a file in place of what the mode makes": (
        keys(decode__input="raw.zarr"),
        r"decode.input is raw.zarr, and --mode=test makes its own",
    ),
}


@pytest.mark.parametrize("slip", SLIPS)
@pytest.mark.usefixtures("undrawn")
def test_each_slip_is_named(config, root, tmp_path, slip):
    change, said = SLIPS[slip]
    change(config, root)
    text = checked(config, tmp_path)
    wrong = text.split("wrong:\n")[1]
    assert re.search(said, wrong), wrong
    assert not text.endswith("ready\n")


@pytest.mark.usefixtures("undrawn")
def test_several_slips_are_all_named_and_counted(config, root, tmp_path, capsys):
    for slip in ("no image", "no address of a cluster", "no skeleton there"):
        SLIPS[slip][0](config, root)
    config.data.val.image = "gone.zarr"  # its skeleton is looked at all the same
    with pytest.raises(InputError, match=r"^(\d) things are wrong, see the list") as e:
        launch.run_mode("check", config, str(tmp_path / "run"))
    printed = capsys.readouterr().out
    for slip in ("no image", "no address of a cluster", "no skeleton there"):
        assert re.search(SLIPS[slip][1], printed)
    count = len(re.findall(r"^  \d+\. ", printed, re.MULTILINE))
    assert str(e.value).startswith(str(count)) and count >= 3


@pytest.mark.usefixtures("undrawn")
def test_all_keys_out_of_their_ranges_and_the_data_besides(config, tmp_path):
    config.decode.memory_gb, config.tune.trials = -1.0, 0
    config.data.train.image = "gone.zarr"
    text = checked(config, tmp_path)
    for said in ("decode.memory_gb is", "tune.trials is 0", "no volume matches"):
        assert said in text
    assert "once these keys are right, check again" in text


def turned_labels(config, root):
    write(root / "turned.zarr", LABELS.transpose(0, 2, 1))
    config.data.train.label = "turned.zarr"


def other_voxels(config, root):
    write(root / "sized.zarr", IMAGE, voxel_size_nm=[18, 18, 25])
    config.data.train.image = "sized.zarr"


def turned_skeletons(config, root):
    """Neurites lie above one another in z, their nodes are written z y x."""
    write(root / "turned.zarr", LABELS.transpose(0, 2, 1))
    config.data.val.label = "turned.zarr"
    skeleton(order=(1, 2, 0))(config, root)


WARNINGS = {
    "labels across the image": (turned_labels, r"fit .*em.zarr better with the axes"),
    "voxels of another size": (
        other_voxels,
        r"voxels are of 18 x 18 x 25 nm, and data.voxel_size_nm is 9 x 9 x 9; say which",
    ),
    "a patch larger than the volume": (
        keys(data__patch=(12, 6, 4)),
        r"has 8 x 12 x 12 voxels \(x y z\), and training reads crops of 13 x 7 x 7 ",
    ),
    "skeletons of another volume": (
        # y of all nodes becomes x: 10 nodes each at x = 1, 6, 10 over all y.
        skeleton(order=(1, 0, 2)),
        r"does not lie in .*labels.zarr.*; is it of another volume\?",
    ),
    "skeletons z y x": (
        turned_skeletons,
        r"with its index_position taken as z y x 100% would be: write it as x y z",
    ),
    "skeletons of another voxel size": (
        keys(data__voxel_size_nm=(4.0, 4.0, 40.0)),
        r"its nm positions mean voxels of",
    ),
}


@pytest.mark.parametrize("slip", WARNINGS)
@pytest.mark.usefixtures("undrawn")
def test_what_keeps_nobody_from_running_is_a_warning(config, root, tmp_path, slip):
    change, said = WARNINGS[slip]
    change(config, root)
    text = checked(config, tmp_path)
    assert text.endswith("ready\n"), text
    assert re.search(said, text.split("worth a look:\n")[1]), text


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_has_begun_is_compared_and_left_as_it_is(config, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    save(run, config, {20: 20})
    config.train.steps, config.model.size = 10, "B"
    before = tree(run / "checkpoints")
    text = checked(config, tmp_path)
    assert re.search(r"of another model: model.size L \(config: B\)", text)
    assert "run is at step 20 and train.steps is 10; ask for more steps" in text
    assert tree(run / "checkpoints") == before


def test_without_a_folder_it_writes_beside_the_runs(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    launch.run_mode("check", config)
    found = sorted(str(p) for p in tmp_path.glob("outputs/*/*/*"))
    folder = tmp_path / "outputs/mystack/check"
    assert found == [str(folder / "check.png"), str(folder / "check.txt")]
    with pytest.raises(InputError, match="no run of mystack"):  # it is no run
        launch.run_mode("test", config)


@pytest.mark.usefixtures("undrawn")
def test_a_split_without_an_image_is_left_out_unless_training_reads_it(
    config, tmp_path
):
    config.data.val.image, config.data.val.skeleton = "", ""
    assert checked(config, tmp_path).endswith("ready\n")
    config.train.val_every = 10
    said = "data.val.image is empty; name the volumes with --config.data.val.image=FILE, or"
    assert said in checked(config, tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_labels_alone_are_enough(config, tmp_path):
    config.data.val.skeleton = ""
    text = checked(config, tmp_path)
    assert text.endswith("ready\n") and "worth a look" not in text


@pytest.mark.usefixtures("undrawn")
def test_what_the_stages_will_take(config, tmp_path):
    """As many lines as there are stages, each with how it was got."""
    config.train.steps, config.train.ckpt_every = 1000, 0
    text = checked(config, tmp_path)
    table = text.split("\n  (starting")[0].splitlines()
    text = " ".join(text.split())
    words = [line.split()[0] for line in table]
    assert words == ["stage", "train", "tune", "predict", "decode", "evaluate"]
    # 4 devices of 1 crop; of x 8:16 is tested, into which windows of 4 at 6, 8, 10 and 12
    # of the whole image's reach: 4 x 3 x 5.
    assert "1,000 steps of 4 crops, each as long as 7 forward passes" in text
    assert "predict: 60 windows, one forward pass of 4 x 6 x 4 took" in text
    assert "decode: 0.05 CPU-seconds a megavoxel (docs/decoding.md)" in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("free", "ready"), [(1e3, False), (1e6, True)])
def test_room_on_the_disk(config, tmp_path, monkeypatch, free, ready):
    """Between what the stages take at least, some kB of weights, and at most."""
    config.data.test.image = ""  # which takes more
    config.data.val.image = ""
    monkeypatch.setattr(
        "shutil.disk_usage", lambda _: type("Usage", (), {"free": free})
    )
    monkeypatch.setattr(estimates, "_STATES", 100)
    text = checked(config, tmp_path)
    assert ("GB free, and the stages take" in text) == (not ready)
    assert text.endswith("ready\n") == ready


def test_a_full_disk_while_the_picture_is_drawn(config, tmp_path, monkeypatch):
    """One line, and no half a picture."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(OSError) as error:
        launch.run_mode("check", config, str(tmp_path / "run"))
    line = launch.outside.explain(error.value)
    assert line is not None
    assert re.fullmatch(r".*check.png: No space left on device; free space .*", line)
    assert not list((tmp_path / "run").rglob("*.p*"))
