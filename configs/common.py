"""The recipe that every preset edits, without a data set: start your own file from here.

Command:
    python -m nisbjax.launch --config=configs/common.py --config.data.root=DIR \
        --config.data.val.image='val/seed9/data.zarr/img' ...

Hardware: as `liconn.py`, whose values these are.

All keys, their types and values stand in `nisbjax/config.py`. The dictionary is locked: a
misspelt key raises. Copy this file, name your run and set what differs.
"""

from nisbjax.config import base_config


def get_config():
    c = base_config()
    c.name = "common"
    return c
