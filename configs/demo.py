"""The main job on made data, on a laptop: synth, train, tune on val, test with QC and mask.

Command:
    python -m nisbjax.launch --config=configs/demo.py --mode=demo      (or: make demo)

Hardware: 2 CPU cores. 9 min 13 s of CPU time from a fresh clone, 12 min 8 s with other work
beside it; before the chain it took 4 min 46 s on 2 idle ones and 2.7 GB of memory.
Score of the test cube, n = 1, seed 42, by the chain at attract .2 and repel .4, as tuned on
val: NERL 0.710, mean over skeletons 0.740, VOI 0.44, 28 segments in mergers, 48 split edges,
0.9 % of nodes on background. Plain components at .70, under a mask: NERL 0.491, mean 0.370,
VOI 2.01, 14.7 %; untrained 0.000; image intensity at its best threshold 0.052; true affinities 0.997.
"""

from nisbjax.config import base_config


def get_config():
    c = base_config()
    c.name = "demo"
    c.data.patch = (48, 48, 48)
    c.data.erosion = (0, 0, 0)  # the cubes are eroded by construction, and small
    # Minutes, not days: what turns a crop teaches most, what blurs it costs steps.
    c.augment.affine = 0.0
    c.augment.drop = 0.0
    c.augment.shift = 0.0
    c.augment.noise = 0.0
    c.model.size = "S"
    c.model.channels = 16
    c.model.remat = "none"
    c.optimizer.lr = 3e-3
    c.schedule.warmup_steps = 20
    c.ema.decay = 0.98
    c.ema.warmup_steps = 20
    c.train.precision = "fp32"
    c.train.batch_per_device = 1
    c.train.steps = 500
    c.train.val_every = 250
    c.train.val_crops = 16
    c.train.log_every = 20
    c.train.ckpt_best = 1
    c.predict.window = (64, 64, 64)
    c.predict.format = "zarr"
    c.predict.channels = (0, 1, 2, 3, 4, 5)
    c.predict.batch_per_device = 1
    c.qc.border_width = 8
    c.qc.z_stride = 2
    c.qc.k_edge = 5
    c.decode.method = "chain"
    c.decode.repel = 0.4  # chosen on val, with other seeds of training
    # A mask takes 18 % of a cube this small, and nothing is wrong there: the chain's mean over
    # skeletons falls from .74 to .67 by it. The plain row has one, as the tutorial does.
    c.decode.affinity_mask = ""
    return c
