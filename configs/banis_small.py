"""The leaderboard's BANIS-S: as `banis.py` with MedNeXt-S and kernel 3.

Command:
    python -m nisbjax.launch --config=configs/banis_small.py --config.data.root=DIR

Hardware: one GPU with 40 GB. Hours: about 25 on an A100, an estimate (flops of S over L).
Score: not measured here yet. Reference, NERL on LICONN's test/seed6: 6.3 % +- 0.4.
"""

import pathlib
import runpy


def get_config():
    c = runpy.run_path(str(pathlib.Path(__file__).with_name("banis.py")))[
        "get_config"
    ]()
    c.name = "nisb_liconn_banis_small"
    c.model.size = "S"
    c.model.kernel_size = 3
    return c
