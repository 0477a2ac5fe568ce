"""The leaderboard's BANIS-S: as `banis.py` with MedNeXt-S and kernel 3.

Command:
    python -m nisbjax.launch --config=configs/banis_small.py --config.data.root=DIR

Hardware: one GPU with 40 GB. Hours: about 25 on an A100, an estimate (flops of S over L).
Score: not measured here yet. Reference, NERL on LICONN's test/seed6: 6.3 % +- 0.4.
"""

import math

from nisbjax.config import base_config


def get_config():
    c = base_config()
    c.name = "nisb_liconn_banis_small"
    c.model.size = "S"
    c.model.kernel_size = 3
    c.data.relabel = True
    c.data.erosion = (0, 0, 0)
    c.augment.order = "banis"
    c.augment.shear_coefficients = 6
    c.loss.kind = "bce"
    c.loss.logit_clamp = 0.0
    c.optimizer.norm_weight_decay = c.optimizer.get_ref("weight_decay")
    c.train.steps = 50_000
    c.train.batch_per_device = 8
    c.train.val_crops = 800
    c.ema.decay = 0.0
    c.tune.thresholds = tuple(1 / (1 + math.exp(-0.2 * k)) for k in range(-1, 12))
    return c
