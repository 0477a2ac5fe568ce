"""Every preset loads, says how it is run, and names no key that nothing reads."""

import ast
import fnmatch
import pathlib
import runpy

import numpy as np
import pytest

from nisbjax.config import base_config, flatten
from nisbjax.convert import stage
from nisbjax.data import nisb
from nisbjax.evaluate import published
from nisbjax.keys import ranges
from nisbjax.store import address

ROOT = pathlib.Path(__file__).parents[1]
PRESETS = sorted((ROOT / "configs").glob("*.py"))
SECTIONS = {key for key, value in base_config().items() if hasattr(value, "items")}


def load(path):
    return runpy.run_path(str(path))["get_config"]()


@pytest.mark.parametrize("path", PRESETS, ids=lambda p: p.stem)
def test_a_preset_loads_locked_and_tells_its_story(path):
    config = load(path)
    assert config.is_locked and config.name
    with pytest.raises(AttributeError):
        config.train.step = 5
    base = flatten(base_config())
    changed = flatten(config)
    assert changed.keys() == base.keys()
    for key, value in changed.items():
        assert type(value) is type(base[key]), key
    header = ast.get_docstring(ast.parse(path.read_text()))
    assert header and "Command:" in header and "Hardware:" in header
    assert f"--config=configs/{path.name}" in header


@pytest.mark.parametrize("path", PRESETS, ids=lambda p: p.stem)
def test_every_key_has_a_range_and_every_preset_keeps_to_it(path):
    config = load(path)
    without = sorted(flatten(config).keys() - ranges.RANGES.keys())
    assert not without, f"give {without} an entry in nisbjax/keys/ranges.py"
    assert ranges.RANGES.keys() == flatten(config).keys()
    ranges.check(config)


def test_derived_values_follow_and_do_not_lead():
    c = base_config()
    c.train.steps, c.data.patch = 10, (32, 32, 32)
    assert c.schedule.steps == 10 and c.predict.window == (32, 32, 32)
    c.schedule.steps, c.predict.window = 20, (64, 64, 64)
    assert c.train.steps == 10 and c.data.patch == (32, 32, 32)
    demo = load(ROOT / "configs" / "demo.py")
    assert demo.data.patch == (48, 48, 48) and demo.predict.window == (64, 64, 64)
    banis = load(ROOT / "configs" / "banis.py")
    banis.optimizer.norm_weight_decay = 0.5
    assert banis.optimizer.weight_decay == 0.01


def test_presets_say_what_the_reference_systems_do():
    """PyTC's v3 recipe for LICONN, and BANIS's own."""
    v3 = flatten(load(ROOT / "configs" / "liconn.py"))
    banis = flatten(load(ROOT / "configs" / "banis.py"))
    differing = {
        "data.relabel": (False, True),
        "data.sampling": ("uniform", "volume"),
        "data.erosion": ([0, 2, 2], [0, 0, 0]),
        "augment.order": ("pytc", "banis"),
        "augment.shear_coefficients": (3, 6),
        "loss.kind": ("per_channel_bce", "bce"),
        "loss.logit_clamp": (20.0, 0.0),
        "optimizer.norm_weight_decay": (0.0, 0.01),
        "ema.decay": (0.999, 0.0),
        "model.kernel_size": (3, 5),
        "train.steps": (200_000, 50_000),
        "train.batch_per_device": (2, 8),
        "train.val_crops": (200, 800),
        # What neither of them does: six channels, and the chain.
        "predict.channels": ([0, 1, 2, 3, 4, 5], [0, 1, 2]),
        "decode.method": ("chain", "affinity_cc"),
    }
    for key, values in differing.items():
        assert (v3[key], banis[key]) == values, key
    follow = {"name", "schedule.steps", "tune.thresholds", "tune.study"}
    assert {k for k in v3 if v3[k] != banis[k]} <= differing.keys() | follow
    same = {
        "model.size": "L",
        "train.precision": "fp16",
        "seed": 42,
        "data.erosion_axes": "legacy",
        "data.edge_stored_at": "source",
        "data.patch": [128, 128, 128],
        "augment.shear": "offdiag",
        "optimizer.lr": 1e-3,
        "optimizer.weight_decay": 0.01,
        "optimizer.clip": 1.0,
        "schedule.kind": "cosine",
        "train.accumulate": 1,
        "train.val_every": 5000,
        "train.ckpt_best": 3,
        "train.ckpt_every": 50_000,
        "train.ckpt_last_minutes": 10,
    }
    for key, value in same.items():
        assert v3[key] == banis[key] == value, key
    shares = ("affine", "drop", "flip", "intensity", "noise", "shift")
    assert {v3[f"augment.{name}"] for name in shares} == {0.5}
    assert (v3["augment.permute"], v3["augment.rotate90"]) == (1, 1)
    assert (v3["augment.drop_slice"], v3["augment.shift_slice"]) == (0.05, 0.05)


def test_liconn_plus_is_liconn_and_what_was_seen_to_help():
    plain = flatten(load(ROOT / "configs" / "liconn.py"))
    plus = flatten(load(ROOT / "configs" / "liconn_plus.py"))
    assert {key: plus[key] for key in plus if plus[key] != plain[key]} == {
        "name": "nisb_liconn_plus",
        "loss.calibre_max": 4.0,
    }
    assert published.setting_of(plus["name"]) == "liconn"


def chain(node, aliases):
    """Dotted keys that an expression names below the config; * for a computed one."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id)
    if isinstance(node, ast.Attribute):
        parent = chain(node.value, aliases)
        return None if parent is None else [*parent, node.attr]
    if isinstance(node, ast.Subscript):
        parent = chain(node.value, aliases)
        index = node.slice
        name = index.value if isinstance(index, ast.Constant) else "*"
        return None if parent is None else [*parent, str(name)]
    return None


def reads(path):
    """Patterns of keys that a module reads."""
    tree = ast.parse(path.read_text())
    words = {
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }
    found = {
        f"*.{field.target.id}"  # decode/methods.py makes them of a section by its names
        for each in ast.walk(tree)
        if isinstance(each, ast.ClassDef) and each.name.endswith("Parameters")
        for field in each.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    for function in functions:
        aliases = {}
        for argument in (*function.args.args, *function.args.kwonlyargs):
            if argument.arg in ("config", "settings"):
                aliases[argument.arg] = []
            elif argument.arg == "section":  # of any name
                aliases[argument.arg] = ["*"]
            elif argument.arg == "cluster":  # a second section beside the stage's own
                aliases[argument.arg] = ["cluster"]
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                keys = chain(node.value, aliases)
                if keys:
                    aliases[node.targets[0].id] = keys
        for node in ast.walk(function):
            whole = None
            if isinstance(node, ast.keyword) and node.arg is None:  # f(**section)
                whole = chain(node.value, aliases)
            if isinstance(node, ast.Attribute) and node.attr in ("to_dict", "items"):
                whole = chain(node.value, aliases)
            if whole:
                found.add(".".join([*whole, "*"]))
            keys = chain(node, aliases)
            if not keys or not isinstance(getattr(node, "ctx", None), ast.Load):
                continue
            # A section that came as an argument is not known by its name.
            known = keys[0] in SECTIONS or keys[0] in ("*", "name", "seed")
            keys = keys if known else ["*", *keys]
            if keys[-1] == "*":  # a computed name: one of the module's words
                found |= {".".join([*keys[:-1], word]) for word in words if word}
            else:
                found.add(".".join(keys))
    return {pattern for pattern in found if pattern.strip("*.")}


def test_every_key_is_read_by_a_stage():
    patterns = set()
    for path in sorted((ROOT / "nisbjax").rglob("*.py")):
        if path.name != "config.py":
            patterns |= reads(path)
    unread = [
        key
        for key in flatten(base_config())
        if not any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)
    ]
    assert not unread, f"no stage reads {unread}"


def test_a_key_that_nothing_reads_is_found(tmp_path):
    module = tmp_path / "stage.py"
    module.write_text(
        "def run(config, place):\n"
        "    settings = config.predict\n"
        "    f(settings.window, **config.augment)\n"
        "    config.data.root = 'x'\n"
        "    return [config.data[s].image for s in place], config.qc[place], 'report'\n"
        "class GrowParameters:\n    min_seed: int = 100\n"
    )
    found = reads(module)
    assert {"predict.window", "augment.*", "data.*.image", "qc.report"} <= found
    assert "*.min_seed" in found
    assert "data.root" not in found and "predict.overlap" not in found
    assert not any(fnmatch.fnmatchcase("decode.input", p) for p in found)


def test_published_volumes_are_read_from_a_folder_of_their_layout(tmp_path):
    """`info` of scales with offsets, image as raw and labels as compressed_segmentation."""
    config = load(ROOT / "configs" / "liconn_public.py")
    values = np.arange(8 * 8 * 8).reshape(8, 8, 8)
    train = config.data.train
    for name, dtype in ((train.image, np.uint8), (train.label, np.uint64)):
        np.save(tmp_path / "a.npy", values.astype(dtype))
        keys = base_config().convert
        keys.update(format="precomputed", downsample=1, voxel_size_nm=(9, 9, 12))
        keys.kind = "image" if dtype == np.uint8 else "labels"
        stage.run(keys, str(tmp_path / "a.npy"), str(tmp_path / "data" / name))
    box = "0:8,2:6,0:8"
    (pair,) = nisb.open_pairs(tmp_path / "data", train.image, train.label, box)
    wanted = values[:, 2:6]
    np.testing.assert_array_equal(pair.labels.read(), wanted)
    np.testing.assert_array_equal(pair.image.read()[..., 0], wanted.astype(np.uint8))
    assert pair.labels.attributes["voxel_size_nm"] == list(config.data.voxel_size_nm)
    assert address.join(config.data.root, train.image).startswith("gs://liconn-public/")
