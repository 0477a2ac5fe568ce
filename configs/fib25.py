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
    c.model.size = "S"
    c.train.precision = "fp32"
    c.train.batch_per_device = 1
    c.decode.affinity_mask = ""  # no border halo and no bad planes here
    return c
