"""Estimates, multiplied out by hand."""

import pytest

from nisbjax import estimates

# 2 million parameters, 16 channels, 2 devices; 1e9 operations took .5 s.
NETWORK = estimates.Network(2_000_000, 16, 2, True, (32, 32, 32), 0.5, 1e9)


def training(**changes):
    keys = {
        "steps": 100,
        "crops": 4,
        "patch": (64, 64, 64),
        "flop": 8e9,
        "recomputed": "block",
        "value_bytes": 2,
        "checkpoints": 3,
    }
    return estimates.training(NETWORK, **keys | changes)


def test_a_training():
    # A forward pass of 8e9 operations is 4 s; 2 crops on each of 2 GPUs, each as
    # long as 4.5 of them: 100 x 2 x 4.5 x 4 s. Of 33 arrays of 64^3 x 16 values of 2 bytes, for 2 crops: 0.5537 GB;
    # weights, average, 2 moments and the gradient, 2e6 x 5 x 4 bytes: .04; the process: .6.
    found = training()
    assert found.seconds == 3600
    assert found.memory_gb == pytest.approx(33 * 2 * 64**3 * 16 * 2e-9 + 0.04 + 0.6)
    # 3 checkpoints of 4 states of 2e6 x 4 bytes.
    assert found.disk_gb == pytest.approx((0.096, 0.096))
    assert found.how.startswith(
        "100 steps of 4 crops, each as long as 4.5 forward passes (docs/performance.md), "
        + "one forward pass of 32 x 32 x 32 took 0.5 s here"
    )
    assert found.how.endswith("2.00 M parameters, 3 checkpoints")


def test_blocks_that_are_kept_take_less_time_and_more_memory():
    found = training(recomputed="none")
    assert found.seconds == 2800  # 3.5 passes
    assert found.memory_gb == pytest.approx(57 * 2 * 64**3 * 16 * 2e-9 + 0.64)


def test_three_crops_on_two_devices_take_as_long_as_four():
    assert training(crops=3).seconds == training(crops=4).seconds


def prediction():
    return estimates.prediction(
        NETWORK,
        windows=10,
        window=(64, 64, 64),
        flop=8e9,
        batch=2,
        memory_gb=4.0,
        value_bytes=4,
        affinity_bytes=10**9,
        copies=2,
    )


def test_a_prediction():
    # 10 windows of 4 s on 2 devices; 5 arrays for 2 windows beside 4 GB.
    found = prediction()
    assert found.seconds == 20
    assert found.memory_gb == pytest.approx(4 + 0.6 + 5 * 2 * 64**3 * 16 * 4e-9)
    assert found.disk_gb == pytest.approx((0.8, 1.8))  # twice .4 to .9 GB


def test_decoding_scores_and_masks():
    # .6 CPU-seconds for each of 10 megavoxels, on 2 cores.
    found = estimates.decoding(method="chain", voxels=10**7, cores=2, memory_gb=4.0)
    assert (found.seconds, found.memory_gb) == (3, 4)
    # 40 MB of labels: .02 to .2 of them, and a scratch folder of 5 MB.
    assert found.disk_gb == pytest.approx((0.0008, 0.008 + 0.005))
    scored = estimates.evaluation(label_bytes=10**8, bytes_per_second=1e8)
    assert scored.seconds == 2  # labels and segmentation
    made = estimates.mask(image_bytes=10**8, bytes_per_second=1e7)
    assert made.seconds == 10


@pytest.mark.parametrize(
    ("method", "seconds"),
    [
        ("affinity_cc", 20 + 2 * 0.05),  # 2 decodes of a megavoxel, and the prediction
        ("chain", 20 + 1.7 + 10 * 0.08),  # tables, and 10 trials
        ("mutex", 20 + 10 * 0.3),  # 10 decodes
    ],
)
def test_a_study(method, seconds):
    found = estimates.study(
        method=method, voxels=10**6, cores=1, trials=10, predicted=prediction()
    )
    assert found.seconds == pytest.approx(seconds)


def test_the_table():
    rows = [
        estimates.Estimate("train", 3 * 3600.0, 12.0, (0.5, 0.5), "by a"),
        estimates.Estimate("decode", None, 0.05, (0.0, 2.0), "by " + "b " * 40),
        estimates.Estimate("predict", 150.0, 4.0, (0.0, 0.0), "c"),
    ]
    assert estimates.table(rows).splitlines() == [
        "stage    time, about  memory  disk",
        "train    3 h          12 GB   500 MB",
        "decode   unknown      50 MB   0 bytes to 2.0 GB",
        "predict  2 min        4.0 GB  0 bytes",
        "  (starting and compiling not counted)",
        "  train: by a",
        "  decode: by " + "b " * 32 + "b",
        "    " + "b " * 6 + "b",
        "  predict: c",
    ]
