"""A prediction that is refused has written nothing and allocated nothing."""

import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.artifacts import VolumeDir
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.infer.network import Network
from nisbjax.models import build
from nisbjax.modes.prediction import predict_by
from nisbjax.store.volume import create_zarr


@pytest.fixture
def config():
    config = base_config()
    config.model.update({"size": "S", "channels": 2})
    config.data.patch = (16, 16, 16)
    config.predict.batch_per_device = 1
    return config


def image(folder, dtype=np.uint8):
    volume = create_zarr(
        folder / "img", shape=(40, 40, 40, 1), dtype=dtype, chunks=(16,) * 3 + (1,),
        axes="xyzc",
    )  # fmt: skip
    volume.write(..., np.arange(64_000).reshape(volume.shape).astype(dtype))
    return folder / "img"


def network(config):
    """The real network, never computed: zeros in the shapes of its parameters."""
    arguments = config.model.to_dict()
    apply = build.make_apply(arguments, jnp.float32, remat=False)
    return Network(apply, build.initial_params(arguments, 0), {})


REFUSED = {
    # 4 bytes for each of 1,000^3 voxels: the weights alone are 4 GB of the 3.
    "predict.window is (1000, 1000, 1000), whose weights alone take 4 GB": {
        "predict.window": (1000, 1000, 1000),
        "predict.memory_gb": 3.0,
    },
    # The images and logits of a batch, four times: 4 (12 + 1) 10^9 bytes of each window.
    "predict.memory_gb=8 does not hold one tile; wanted at least ": {
        "predict.window": (1000, 1000, 1000),
    },
    "MedNeXt got an image of (24, 24, 24) voxels, wanted multiples of (16, 16, 16)": {
        "predict.window": (24, 24, 24),
    },
    "predict.channels is (0, 1, 9) for a network of 6 output channels; wanted some of 0": {
        "predict.channels": (0, 1, 9),
    },
    "predict.roi 0:41,0:4,0:4 is not inside the image, 0:40,0:40,0:40": {
        "predict.roi": "0:41,0:4,0:4",
    },
    "predict.tta=flips needs the offset of each of predict.channels=(0, 1, 5), and data.": {
        "predict.tta": "flips",
        "predict.channels": (0, 1, 5),
        "data.offsets": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    },
    "predict.tta=flips needs offsets along one axis each; (1, 1, 0) is not: set predict": {
        "predict.tta": "flips",
        "data.offsets": ((1, 1, 0), (0, 1, 0), (0, 0, 1)),
    },
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_predicted_is_refused_before_anything(tmp_path, config, text):
    config.update_from_flattened_dict(REFUSED[text])
    path = image(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as caught:
        predict_by(config, network(config), path, VolumeDir(tmp_path / "out"))
    assert text in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_bytes_are_wanted_before_a_file_is_begun(tmp_path, config):
    path = image(tmp_path, np.uint16)
    with pytest.raises(InputError, match="holds uint16; divide_255 wants uint8"):
        predict_by(config, network(config), path, VolumeDir(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_network_that_answers_another_shape(tmp_path, config):
    path = image(tmp_path)
    halved = Network(lambda _, images: images[:, ::2], np.zeros(1), {})
    with pytest.raises(
        InputError, match=r"answers predict.window=\(16, 16, 16\) with "
    ):
        predict_by(config, halved, path, VolumeDir(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
