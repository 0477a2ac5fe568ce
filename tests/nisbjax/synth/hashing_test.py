"""Random numbers of places: the published generator, and its moments."""

import numpy as np

from nisbjax.synth import hashing


def test_the_hash_is_splitmix64():
    # Steele, Lea and Flood's generator from the seed 0 begins with these two numbers: the
    # scrambled first and second multiple of its step.
    assert int(hashing.key(0, 0)) == 0xE220A8397B1DCDAF
    assert int(hashing.key(0, 1)) == 0x6E789E6AA1B965F4


def test_numbers_of_a_place_do_not_depend_on_others():
    assert hashing.bits(7, -1, 2, 3) == hashing.bits(7, -1, 2, 3)
    places = {int(hashing.bits(7, *p)) for p in np.ndindex(4, 4, 4)}
    assert len(places) == 64


def test_units_and_normals():
    assert hashing.unit(np.uint64(0)) == 0 and hashing.unit(np.uint64(1 << 63)) == 0.5
    # Four halves of 2^16 are 2, the mean.
    assert hashing.normal(np.uint64(0x8000_8000_8000_8000)) == 0
    sites = (np.uint64(hashing.bits(1, x, 0, 0)) for x in range(2000))
    draws = [hashing.normal(site) for site in sites]
    # 5 standard errors of mean and variance (1 and 1.3, over the root of 2000).
    assert abs(np.mean(draws)) < 0.12 and abs(np.var(draws) - 1) < 0.16


def test_smooth_noise_meets_its_lattice():
    site = 2 * hashing.unit(hashing.bits(3, 4, 5, 6)) - 1
    assert hashing.smooth(3, 4.0, 5.0, 6.0) == site
    assert abs(hashing.smooth(3, 4.001, 5.0, 6.0) - site) < 1e-4
