"""The leaderboard's BANIS-L: L/k5, 50 k steps of batch 8, pooled BCE, BANIS's own augmentation.

Command:
    python -m nisbjax.launch --config=configs/banis.py --config.data.root=DIR
For another setting than LICONN name its cubes: `--config.data.test.image=...` and so on.

Hardware: one GPU with 80 GB, or several (the batch is split over them). Hours: about 60 on
an A100, an estimate from `liconn.py`'s by the number of crops and the network's flops.
Score: not measured here yet. Reference, NERL on LICONN's test/seed6: 12.9 % +- 0.8
(mean and 95 % interval of the leaderboard).

Recipe (BANIS 7e4834c): affine last with six shear coefficients, weight decay on every
parameter, no EMA, no erosion, components split by the crop are relabelled, thresholds
sigma(0.2 k) for k = -1..11, the best on val applied to test.
"""

import math

from nisbjax.config import base_config


def get_config():
    c = base_config()
    c.name = "nisb_liconn_banis"
    c.model.size = "L"
    c.model.kernel_size = 5
    c.data.sampling = "volume"
    c.data.relabel = True
    c.data.erosion = (0, 0, 0)
    c.augment.order = "banis"
    c.augment.shear_coefficients = 6
    c.loss.kind = "bce"
    c.loss.logit_clamp = 0.0
    c.optimizer.norm_weight_decay = c.optimizer.get_oneway_ref("weight_decay")
    c.train.steps = 50_000
    c.train.batch_per_device = 8
    c.train.val_crops = 800  # 100 batches of 8
    c.ema.decay = 0.0  # the average is the weights themselves
    c.tune.thresholds = tuple(1 / (1 + math.exp(-0.2 * k)) for k in range(-1, 12))
    return c
