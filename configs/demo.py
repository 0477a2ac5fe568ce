"""The main job on made data, on a laptop: synth, train, tune on val, test with QC and mask.

Command:
    python -m nisbjax.launch --config=configs/demo.py --mode=demo      (or: make demo)

Hardware: 2 CPU cores, at most 6 GB of memory, at most 10 minutes.
"""

from nisbjax.config import base_config


def get_config():
    c = base_config()
    c.name = "demo"
    c.data.patch = (32, 32, 32)
    c.model.size = "S"
    c.model.channels = 16
    c.model.remat = False
    c.train.precision = "fp32"
    c.train.batch_per_device = 2
    c.train.steps = 600
    c.train.val_every = 200
    c.train.val_crops = 16
    c.train.log_every = 20
    c.train.ckpt_every = 1_000_000
    c.train.ckpt_best = 1
    c.ema.decay = 0.99
    c.ema.warmup_steps = 50
    c.data.erosion = (0, 0, 0)  # the cubes are eroded by construction, and small
    c.predict.window = (64, 64, 64)
    c.predict.format = "zarr"
    c.predict.batch_per_device = 1
    c.qc.border_width = 8
    c.qc.z_stride = 2
    return c
