"""Published LICONN (Tavakoli et al. 2025, doi 10.1038/s41586-025-08985-1), read where it lies.

Command:
    python -m nisbjax.launch --config=configs/liconn_public.py --config.data.train.box=X0:X1,Y0:Y1,Z0:Z1
    python -m nisbjax.launch --config=configs/liconn_public.py --config.data.root=DIR --config.data.train.box=...
The first reads `gs://liconn-public` through the network, the second a copy of `ExPID82_1` in DIR. Boxes
count from the first voxel of each volume; `data.val.box` and `data.test.box` are others.

Hardware: as liconn.py, one GPU with 40 GB or more; a box of 1,000^3 voxels is about 1 GB of image.
Score: none; this preset was not run, since the bucket was not within reach. Its reader is tested on
a local folder of the same layout. Paths are those that public code of others names
(`image_230130b`, `segmentation/231030_agg_240123`); sizes, offsets and scales are what their `info`
says, which nobody looked at here. `data.voxel_size_nm` is that of liconn.py, and training says so
where the volume says another; a coarser scale is named behind the path (`image_230130b/KEY`).

The labels are the authors' automatic, agglomerated segmentation and no ground truth: a network
that learns from them learns their errors, and a score by them is one of agreement.
"""

from nisbjax.config import base_config


def get_config():
    c = base_config()
    c.name = "liconn_public"
    c.data.kind = "files"
    c.data.root = "gs://liconn-public/ExPID82_1"
    for split in ("train", "val", "test"):
        c.data[split].image = "image_230130b"
        c.data[split].label = "segmentation/231030_agg_240123"
    c.data.val.skeleton = c.data.test.skeleton = ""
    c.predict.channels = (0, 1, 2, 3, 4, 5)
    c.decode.method = "chain"
    return c
