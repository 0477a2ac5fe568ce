"""Words of XLA_FLAGS that XLA knows; those that it does not, `launch_test` has."""

import pytest

from nisbjax.parallel import environment


@pytest.mark.parametrize("said", ["", "--xla_cpu_enable_fast_math=true", __file__])
def test_flags_of_xla_are_left_alone(said):
    environment.require_xla_flags(said)
