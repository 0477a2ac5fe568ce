"""What made a file, in its own words."""

import pytest

import nisbjax
from nisbjax.store import software


@pytest.mark.parametrize(
    "said, ours",
    [(software.NAME, True), ("nisbjax 9.9", True), ("nisbjaxes", False), (None, False)],
)
def test_files_of_any_version_are_ours(said, ours):
    assert software.is_ours(said) == ours


def test_the_package_has_its_version():
    assert software.NAME == f"nisbjax {nisbjax.__version__}"
