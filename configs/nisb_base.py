"""NISB base with the BANIS+ recipe (PyTC `base_banis+`).

Command:
    python -m nisbjax.launch --config=configs/nisb_base.py --config.data.root=DIR
DIR holds `train/seed{0..4}`, `val/seed100` and `test/seed101` of s3://nisb/base/. Append
`--config.train.precision=bf16` for no loss scaling.

Hardware: one GPU with 40 GB or more. Hours: about 96 on an A100, an estimate (twice the
batch of `liconn.py`).
Score: not measured here yet. Reference, NERL on test/seed101: 43.0 % +- 1.9 (BANIS-L,
leaderboard), 59.6 % +- 1.1 (PyTC's base_banis+, three runs, threshold .66). Those are of plain
components, `--config.decode.method=affinity_cc`; here the chain decodes six channels.
"""

from nisbjax.config import base_config


def get_config():
    c = base_config()
    c.name = "nisb_base_banis_plus"
    c.data.voxel_size_nm = (9.0, 9.0, 20.0)
    for split, seed in (("val", "seed100"), ("test", "seed101")):
        c.data[split].image = f"{split}/{seed}/data.zarr/img"
        c.data[split].label = f"{split}/{seed}/data.zarr/seg"
        c.data[split].skeleton = f"{split}/{seed}/skeleton.pkl"
    c.train.batch_per_device = 4
    c.predict.channels = (0, 1, 2, 3, 4, 5)
    c.decode.method = "chain"
    c.decode.threshold = 0.66
    return c
