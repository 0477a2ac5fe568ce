"""Three training steps of a narrow network on cubes of 48 x 40 x 36 voxels."""

import importlib.util
import pathlib

_DEMO = pathlib.Path(__file__).parents[2] / "configs" / "demo.py"


def get_config():
    found = importlib.util.spec_from_file_location("demo", _DEMO)
    demo = importlib.util.module_from_spec(found)
    found.loader.exec_module(demo)
    c = demo.get_config()
    c.synth.shape = (48, 40, 36)
    c.data.patch = (16, 16, 16)
    c.model.channels = 4
    c.train.steps = 3
    c.train.val_every = 2
    c.train.val_crops = 3
    c.train.log_every = 1
    c.predict.window = (32, 32, 32)
    c.qc.border_width = 4
    c.tune.thresholds = (0.3, 0.4, 0.5)
    # Plain components under a mask: every stage of the tutorial, and a study of one pass.
    c.predict.channels = (0, 1, 2)
    c.decode.method = "affinity_cc"
    c.decode.affinity_mask = "auto"
    return c
