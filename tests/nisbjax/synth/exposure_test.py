"""What the edge of the slab does to image and labels."""

import numpy as np

from nisbjax.synth import exposure

SHAPE = (4, 3, 6)
PLAIN = exposure.Exposure(0.0, 0.0, 150.0, 0, 20.0, 2, 1)


def test_defective_planes_are_dim_and_others_as_painted():
    image = np.full(SHAPE, 100.0, np.float32)
    start, shape = np.zeros(3, np.int64), np.array(SHAPE)
    found = exposure.expose(image, start, shape, np.uint64(5), PLAIN)
    assert (found[..., 2:5] == 100).all()
    # 0.42 * 150 + 0.15 * (100 - 150) = 55.5, and half a grey value is rounded up.
    assert (found[..., [0, 1, 5]] == 56).all()


def test_labels_of_two_neurites_share_no_face_and_end_at_defects():
    # One voxel around the box; neurite 1 up to x = 2, neurite 2 behind it.
    raw = np.full([s + 2 for s in SHAPE], 1, np.int32)
    raw[3:] = 2
    low, start = np.ones(3, np.int64), np.zeros(3, np.int64)
    found = exposure.separate(
        raw, low, start, SHAPE, np.array(SHAPE), np.uint64(5), PLAIN
    )
    # Of x = 0 1 | 2 3 the two at the border go; planes 0, 1 and 5 show nothing.
    assert found[:, 1, 3].tolist() == [1, 0, 0, 2]
    assert not found[..., [0, 1, 5]].any()
