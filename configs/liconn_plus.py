"""LICONN, trained for the chain: `liconn.py` with more weight on the edges of thin neurites.

Command:
    python -m nisbjax.launch --config=configs/liconn_plus.py --config.data.root=DIR
    python -m nisbjax.launch --config=configs/liconn_plus.py --config.data.root=DIR --mode=tune-test
DIR as for `liconn.py`.

Hardware: one GPU with 40 GB or more, as `liconn.py`, and as many hours: about 48 on an A100, an
estimate. The weights took 3 % more CPU-seconds in the demo.
Score: not measured on LICONN yet.

Samples: 200,000 steps of batch 2 on one GPU are 0.4 M crops; PyTC's best run saw 1.6 M.
`--config.train.accumulate=4` sees as many on one GPU, in four times the hours; four GPUs of batch 2
see them without it, in the hours of one.

Ablated on synthetic LICONN, 500 steps, judged by the chain's mean over skeletons on val, best of 15
pairs of biases, mean +- standard deviation over training seeds (`docs/training.md`):
`loss.calibre_max` 1: .790 +- .013 (three seeds); 4: .814 +- .009 (the same), which is what this
file sets; 4 with `loss.scnp=3`: .226 (one). Not ablated, so as `liconn.py` has them: erosion and
`data.long_erosion`, offsets, `predict.scale`, augmentation, accumulation. Nothing on real tissue.
"""

import pathlib
import runpy


def get_config():
    c = runpy.run_path(str(pathlib.Path(__file__).with_name("liconn.py")))[
        "get_config"
    ]()
    c.name = "nisb_liconn_plus"
    c.loss.calibre_max = 4.0
    return c
