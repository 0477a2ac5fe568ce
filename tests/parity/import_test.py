"""A file that torch wrote, through the command line to affinities and a segmentation."""

import collections
import pathlib

import h5py
import numpy as np
import pytest

from nisbjax.artifacts import Run
from nisbjax.store.volume import open_image

twin = pytest.importorskip("torch_mednext")
torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ROOT = pathlib.Path(__file__).parents[2]
FLAGS = {
    "synth.shape": "(48,48,48)",
    "synth.volumes": "('test/seed6',)",
    "predict.window": "(48,48,48)",  # the whole volume is one window
    "predict.format": "h5",
    "qc.border_width": "4",
}


def affinities(network, image):
    x = torch.from_numpy(image.transpose(3, 0, 1, 2)[None].astype(np.float32) / 255)
    with torch.inference_mode():
        return torch.sigmoid(0.2 * network(x)[0]).numpy()


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_predictions_are_torchs(tmp_path, launched, weights):
    network = twin.fill(twin.MedNeXt("S", 3, channels=8))
    average = twin.fill(twin.MedNeXt("S", 3, channels=8))
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.mul_(0.9)
    state = {f"model.model.{n}": v for n, v in network.state_dict().items()}
    ema = {f"model.{n}": v for n, v in average.state_dict().items()}
    content = {
        "state_dict": state,
        "global_step": 200,
        "callbacks": {"EMAWeightsCallback": {"ema_state": ema, "updates": 200}},
        "best_thr_so_far": collections.defaultdict(float),
    }
    file = tmp_path / "step=00000200.ckpt"
    torch.save(content, file)
    run = Run(tmp_path / "run")
    launched("synth", run.path, FLAGS)
    said = launched("import", run.path, FLAGS, f"--checkpoint={file}")
    assert "with it add --config.model.channels=8" in said
    keys = FLAGS | {"model.channels": 8, "predict.weights": weights}
    launched("test", run.path, keys)
    place = run.test(200, "seed6")
    with h5py.File(place.raw("h5", range(6))) as prediction:
        got = prediction["main"][:].astype(np.float32)
    image = open_image(run.synthetic / "test/seed6/data.zarr/img").read()
    wanted = affinities(average if weights == "ema" else network, image)
    error = np.abs(got - wanted).max()
    print(
        f"{weights}: {error:.1e}; affinities {wanted.min():.2f} to {wanted.max():.2f}"
    )
    # float16 rounds values below 1 by at most 2^-12 = 2.4e-4; the rest is ours.
    assert error < 2.5e-4
    assert list(place.path.glob("decoded_*.zarr")) and list(place.path.glob("eval_*"))
