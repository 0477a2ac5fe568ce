"""The compiled program of a batch on numbers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.infer.conversion import Conversion, Normalization, make_program
from nisbjax.store.volume import from_array


def two_logits(params, images):
    """x and -3 x of the network's input x, by voxel."""
    return jnp.concatenate([images, -3 * images], -1) * params


def predict(conversion, image, params=1.0, weights=None):
    volume = from_array(image, "xyzc")
    volume, scale = conversion.normalization.applied(volume)
    span, image = np.array(scale, np.float32), volume.read()
    program = make_program(two_logits, conversion, None)
    if weights is None:
        weights = np.ones(image.shape[:3], np.float32)
    return np.asarray(program(np.float32(params), span, weights, image[None]))[0]


BYTES = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1)  # 0, 1/5 and 1


def test_channels_are_kept_in_the_order_that_is_asked_for():
    got = predict(Conversion(channels=(1, 0), activation="none"), BYTES)
    np.testing.assert_allclose(got[:, :, 0, 0], [[0, -0.6, -3], [0, 0.2, 1]], rtol=1e-6)
    got = predict(Conversion(channels=(1,), activation="none"), BYTES)
    assert got.shape == (1, 3, 1, 1)


def test_answers_are_weighted_by_voxel():
    conversion = Conversion(channels=(0, 1), activation="none")
    weights = np.array([7, 5, 2], np.float32).reshape(3, 1, 1)
    got = predict(conversion, BYTES, weights=weights)
    # 0, 1/5 and 1, and -3 times that, by 7, 5 and 2.
    np.testing.assert_allclose(got[:, :, 0, 0], [[0, 1, 2], [0, -3, -6]], rtol=1e-6)


def test_activations():
    # Of the logit 10 x: sigmoid(0.2 x 10) = 1 / (1 + e^-2), sigmoid(10) = 1 / (1 + e^-10).
    white = BYTES[2:]
    for activation, scale, want in (
        ("scale_sigmoid", 0.2, 1 / (1 + np.exp(-2))),
        ("sigmoid", 0.2, 1 / (1 + np.exp(-10))),
        ("none", 0.2, 10.0),
    ):
        conversion = Conversion(channels=(0,), activation=activation, scale=scale)
        got = predict(conversion, white, params=10)
        np.testing.assert_allclose(got.item(), want, rtol=1e-6)


def test_grey_values_are_scaled_or_taken_as_they_are():
    image = np.array([-4, 0, 6, np.nan], np.float32).reshape(4, 1, 1, 1)
    plain = Conversion(channels=(0,), activation="none")
    # -4 to 6 become 0 to 1; NaN counts as the lowest.
    scaled = Conversion(Normalization("min_max"), (0,), "none")
    np.testing.assert_allclose(predict(scaled, image).ravel(), [0, 0.4, 1, 0])
    as_is = Conversion(Normalization("none"), (0,), "none")
    np.testing.assert_allclose(predict(as_is, image).ravel(), [-4, 0, 6, 0])
    with pytest.raises(InputError, match="holds float32; divide_255 wants uint8"):
        predict(plain, image)


def test_flips_of_a_network_that_sees_voxels_alone_change_nothing_inside():
    image = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    once = predict(Conversion(channels=(0,), activation="none"), image)
    flips = Conversion(channels=(0,), activation="none", flips=((1, 0, 0),))
    got = predict(flips, image)
    # The edge x -> x + 1 of plane 0 is stored at plane 1 in the flipped image: half of the
    # eight flips bring the value from there. Plane 1 has no partner: the others decide.
    np.testing.assert_allclose(got[0, 0], (once[0, 0] + once[0, 1]) / 2, rtol=1e-6)
    np.testing.assert_allclose(got[0, 1], once[0, 1], rtol=1e-6)


@pytest.mark.parametrize(
    "conversion, text",
    [
        (Conversion(activation="relu"), "predict.activation='relu' is not one of"),
        (
            Conversion(channels=(0, 2)),
            r"channels=\(0, 2\) were asked of a network with 2",
        ),
        (
            Conversion(channels=(-1,)),
            r"channels=\(-1,\) were asked of a network with 2",
        ),
    ],
)
def test_what_the_network_does_not_have_is_refused(conversion, text):
    with pytest.raises(InputError, match=text):
        predict(conversion, BYTES)


def test_logits_of_another_shape_are_refused():
    program = make_program(lambda _, images: images[:, ::2], Conversion(), None)
    asked = jax.ShapeDtypeStruct((1, 4, 4, 4, 1), np.uint8)
    weights = np.ones((4, 4, 4), np.float32)
    with pytest.raises(InputError, match=r"windows of \(4, 4, 4\) with \(2, 4, 4\)"):
        jax.eval_shape(program, np.float32(0), np.zeros(4, np.float32), weights, asked)
