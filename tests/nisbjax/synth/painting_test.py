"""One neurite, painted: bright inside, dark at its membrane and outside."""

import numpy as np

from nisbjax.synth import domains, painting

# Nothing varies: no texture, spread, fading or vesicles.
LOOK = painting.Look(2.0, 1.5, 1.0, 0.5, 0.0, 3.0, 9.0, 0.0, 0.0, 0.0, 100.0)


def test_a_line_ends_where_the_space_between_begins():
    # Radius 3 along z at x = 0; it reaches 2 radii: the membrane's middle is at 6 nm.
    segment = np.zeros((1, domains.COLUMNS))
    segment[0, 5], segment[0, 6:8], segment[0, 8], segment[0, 14] = 10, 3.0, 1, 7
    start, shape, size = np.array([0, 0, 5]), (9, 1, 1), np.ones(3)
    owners = domains.rasterize(segment, start, shape, size, LOOK.extracellular)
    image, labels = painting.paint(segment, *owners, start, size, np.uint64(1), LOOK)
    # Labels end 1.5 nm before the membrane's middle.
    assert labels[:, 0, 0].tolist() == [7] * 5 + [0] * 4
    np.testing.assert_allclose(image[:4, 0, 0], 100, atol=2)
    # 1 nm before the middle: half the contrast times 1 / e.
    np.testing.assert_allclose(image[5, 0, 0], 100 * (1 - 0.5 / np.e), atol=10)
    assert (image[6:, 0, 0] == 50).all()
