"""A real FIB-SEM block (FlyEM FIB-25 medulla, 10 nm).

Command:
    python -m nisbjax.launch --config=configs/fib25.py --config.data.root=DIR
    python -m nisbjax.launch --config=configs/fib25.py --config.data.root=DIR --mode=tune
DIR holds `train/seed0` and `val/seed1` in NISB's layout: `training_sample2` of
github.com/janelia-flyem/neuroproof_examples and the neighbouring block, axes turned to
x y z, skeletons by kimimaro (TEASAR).

Hardware: 2 CPU cores, half an hour for a first result (not measured here yet).
"""

from nisbjax.config import base_config


def get_config():
    c = base_config()
    c.name = "fib25"
    c.data.voxel_size_nm = (10.0, 10.0, 10.0)
    for split, seed in (("train", "seed0"), ("val", "seed1"), ("test", "seed2")):
        c.data[split].image = f"{split}/{seed}/data.zarr/img"
        c.data[split].label = f"{split}/{seed}/data.zarr/seg"
        if split != "train":
            c.data[split].skeleton = f"{split}/{seed}/skeleton.pkl"
    c.data.patch = (64, 64, 64)
    c.data.erosion = (1, 1, 1)  # these labels touch without background
    c.data.erosion_axes = "xyz"
    # Isotropic tissue, one block, half an hour: what turns a crop teaches most, what blurs
    # or drops planes of it costs steps.
    c.augment.affine = 0.0
    c.augment.drop = 0.0
    c.augment.shift = 0.0
    c.augment.noise = 0.0
    c.model.size = "S"
    c.model.channels = 16
    c.model.remat = False
    c.optimizer.lr = 4e-3
    c.schedule.warmup_steps = 40
    c.ema.decay = 0.99
    c.ema.warmup_steps = 40
    c.train.steps = 2250
    c.train.precision = "fp32"
    c.train.batch_per_device = 1
    c.train.val_every = 0  # the neighbouring block is scored once, by --mode=tune
    c.train.log_every = 25
    c.train.ckpt_best = 0
    c.predict.format = "zarr"
    c.predict.batch_per_device = 1
    c.tune.study = "fib25_cc_tuning"
    c.tune.thresholds = tuple(round(0.30 + 0.02 * i, 2) for i in range(33))
    c.decode.affinity_mask = ""  # no border halo and no bad planes here
    return c
