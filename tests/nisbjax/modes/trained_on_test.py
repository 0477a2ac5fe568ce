"""A network that meets another resolution, or other grey values, than it was trained at."""

from nisbjax.config import base_config, flatten, source
from nisbjax.modes.trained_on import differences


def test_the_same_and_what_is_near_says_nothing():
    config = base_config()
    assert differences(flatten(config), config, "em") == []
    # Within 10 % of 9 nm.
    assert differences(flatten(config), config, "em", (9.8, 8.2, 12.0)) == []
    assert differences({"seed": 42}, config, "em", (1.0, 1.0, 1.0)) == []


def test_another_resolution():
    config = base_config()
    used = flatten(config)
    (line,) = differences(used, config, "em", (9.0, 9.0, 13.5))  # 12.5 % apart
    assert line.startswith(
        "em has voxels of 9 x 9 x 13.5 nm, and the network was trained at 9"
    )
    config.data.voxel_size_nm = (4.0, 4.0, 40.0)
    (line,) = differences(used, config, "em")
    assert (
        "em has voxels of 4 x 4 x 40 nm" in line and "at 9 x 9 x 12 nm: expect" in line
    )
    used["data.train.sources"] = [
        list(source("a", image="i", label="l", voxel_size_nm=[4.0, 4.0, 42.0]))
    ]
    assert differences(used, config, "em") == []


def test_another_normalisation():
    config = base_config()
    used = flatten(config)
    config.data.percentiles = (1.0, 99.0)  # counts for `percentile` alone
    assert differences(used, config, "em") == []
    config.data.normalize = "percentile"
    (line,) = differences(used, config, "em")
    assert line.startswith(
        "data.normalize is percentile, and the network was trained with d"
    )
    config.data.normalize, config.data.invert = "divide_255", True
    (line,) = differences(used, config, "em")
    assert line.startswith(
        "data.invert is True, and the network was trained with False"
    )
