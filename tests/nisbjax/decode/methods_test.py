"""Keys that mean nothing, by the method that takes them."""

import pytest

from nisbjax.config import base_config
from nisbjax.decode.methods import METHODS, check_keys
from nisbjax.errors import InputError


@pytest.mark.parametrize("method", METHODS)
def test_the_preset_is_taken_by_every_method(method):
    config = base_config()
    config.decode.method = method
    check_keys(config.decode, config.cluster)


@pytest.mark.parametrize(
    "method, changed, message",
    [
        ("affinty", {}, "decode.method is 'affinty'; wanted one of affinity_cc, grow"),
        ("mutex", {"threshold": 1.5}, r"decode.threshold is 1.5; wanted .* \[0, 1\]"),
        ("grow", {"threshold": float("nan")}, "decode.threshold is nan"),
        ("grow", {"low_threshold": -0.5}, "decode.low_threshold is -0.5"),
        ("affinity_cc", {"min_size": -1}, "decode.min_size is -1; wanted 0 or more"),
    ],
)
def test_what_means_nothing_is_named(method, changed, message):
    config = base_config()
    config.decode.update({"method": method, **changed})
    with pytest.raises(InputError, match=message):
        check_keys(config.decode, config.cluster)


def test_only_what_a_method_takes_is_looked_at():
    config = base_config()
    config.decode.low_threshold = -1.0  # of grow and mutex
    check_keys(config.decode, config.cluster)
    config.cluster.kind = "slurm"  # of streamed methods
    with pytest.raises(InputError, match="cluster.kind is 'slurm'; wanted one of"):
        check_keys(config.decode, config.cluster)
    config.decode.update({"method": "grow", "low_threshold": 0.5})
    check_keys(config.decode, config.cluster)
