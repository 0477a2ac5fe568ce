"""Whole volumes through a small network: against a slow oracle, bit for bit in pieces."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.infer.blend import window_weights
from nisbjax.infer.conversion import Conversion, Normalization, make_program
from nisbjax.infer.predict import predict_volume
from nisbjax.infer.slabs import Job
from nisbjax.infer.tiles import tile_shape
from nisbjax.infer.windows import Grid
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import Volume, create_zarr, from_array

SHAPE, WINDOW = (21, 18, 13), (8, 8, 8)
CHUNKS = (1, 4, 4, 4)
SMALL = 130_000  # bytes that hold a tile, and not the whole volume


def network(params, images):
    """Logits that depend on a voxel's place in its window, so that blending matters."""
    left = jnp.pad(images, ((0, 0), (1, 0), (0, 0), (0, 0), (0, 0)))[:, :-1]
    above = jnp.pad(images, ((0, 0), (0, 0), (0, 1), (0, 0), (0, 0)))[:, :, 1:]
    mixed = params["a"] * images + params["b"] * left - above
    return jnp.concatenate([mixed, -mixed, mixed * left, images], -1)


PARAMS = {"a": np.float32(4.0), "b": np.float32(-7.0)}


def draw(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 1), np.uint8)


def names(kind):
    return {field.name for field in dataclasses.fields(kind)}


def grouped(options):
    """Arguments by the names of their fields."""
    job = {k: options.pop(k) for k in names(Job) & options.keys()}
    conversion = {k: options.pop(k) for k in names(Conversion) & options.keys()}
    return {**options, "job": Job(**job), "conversion": Conversion(**conversion)}


def run(image, folder, *, shape=None, dtype="float16", grid=None, **options):
    grid = grid or Grid(image.shape[:3], WINDOW)
    output = create_zarr(
        folder / "raw.zarr",
        shape=(3, *(shape or image.shape[:3])),
        dtype=dtype,
        chunks=CHUNKS,
        axes="cxyz",
    )
    options = {"batch_per_device": 3, "memory_gb": 1.0, **options}
    predict_volume(
        network, PARAMS, from_array(image, "xyzc"), output, grid, **grouped(options)
    )
    return output.read()


def oracle(image, *, window=WINDOW, scale=0.2, edge=False):
    """Pads, predicts each window alone, and averages in float64."""
    size = np.array(image.shape[:3])
    padded = np.maximum(size, window)
    low = (padded - size) // 2
    # An axis that one window covers has no windows at its edges, as in PyTC.
    reach = np.where(edge & (size > window), np.array(window) // 2, 0)
    pads = [
        (a + r, p - s - a + r)
        for a, r, p, s in zip(low, reach, padded, size, strict=True)
    ]
    values = np.pad(image[..., 0], pads, mode="reflect") / np.float32(255)
    sums, total = np.zeros((3, *values.shape)), np.zeros(values.shape)
    starts = []
    for extent, w in zip(values.shape, window, strict=True):
        starts.append(sorted({*range(0, extent - w + 1, w // 2), extent - w}))
    for x in starts[0]:
        for y in starts[1]:
            for z in starts[2]:
                at = np.s_[x : x + window[0], y : y + window[1], z : z + window[2]]
                logits = np.asarray(network(PARAMS, values[at][None, ..., None]))
                answer = 1 / (1 + np.exp(-scale * logits[0, ..., :3]))
                weight = np.empty(window)
                for p in np.ndindex(*window):
                    weight[p] = min(
                        min(i + 1, w - i) for i, w in zip(p, window, strict=True)
                    )
                sums[(slice(None), *at)] += np.moveaxis(answer, -1, 0) * weight
                total[at] += weight
    keep = tuple(
        slice(a, a + s) for (a, _), s in zip(pads, image.shape[:3], strict=True)
    )
    return (sums / np.maximum(total, 1e-9))[(slice(None), *keep)]


@pytest.mark.parametrize("shape", [SHAPE, (5, 18, 13), (5, 1, 7), (8, 8, 8)])
@pytest.mark.parametrize("edge", [False, True])
def test_a_volume_equals_the_slow_average(tmp_path, shape, edge):
    image = draw(shape)
    grid = Grid(shape, WINDOW, edge_windows=edge)
    got = run(image, tmp_path, dtype="float32", grid=grid)
    np.testing.assert_allclose(got, oracle(image, edge=edge), atol=2e-6)


def in_order(image, grid, conversion):
    """Averages in float32: products, then sums in the grid's order, each rounded once."""
    program = make_program(network, conversion, None)
    span, ones = np.array([0, 255, 0, 1], np.float32), np.ones(grid.window, np.float32)
    weights = window_weights(grid.window, conversion.blend)
    sums = np.zeros((len(conversion.channels), *grid.shape), np.float32)
    total = np.zeros(grid.shape, np.float32)
    for start in grid.touching(Box.whole(grid.shape)):
        at = grid.box(start).slices
        images = np.stack([image[at]] * 3)
        answer = np.asarray(program(PARAMS, span, ones, images))[0]
        sums[(slice(None), *at)] += answer * weights
        total[at] += weights
    return sums / total


@pytest.mark.parametrize("flips", [None, ((1, 0, 0), (0, 1, 0), (0, 0, 1))])
def test_values_are_sums_in_float32_in_the_grids_order(tmp_path, flips):
    image, grid = draw(SHAPE), Grid(SHAPE, WINDOW)
    # Weights that are no integers: their sums depend on the order.
    options = {"blend": "bump", "flips": flips}
    want = in_order(image, grid, Conversion(**options))
    for dtype, rounded in (
        ("float32", want),
        ("float16", want.astype(np.float16)),
        ("uint8", np.rint(want * np.float32(255)).astype(np.uint8)),
    ):
        got = run(image, tmp_path / dtype, dtype=dtype, grid=grid, **options)
        np.testing.assert_array_equal(got, rounded)


def test_predictions_do_not_depend_on_boxes_devices_or_regions(tmp_path):
    image = draw(SHAPE)
    whole = run(image, tmp_path / "whole", blend="bump")
    grid = Grid(SHAPE, WINDOW)
    output = create_zarr(
        tmp_path / "plan",
        shape=(3, *SHAPE),
        dtype="float16",
        chunks=CHUNKS,
        axes="cxyz",
    )
    volume = from_array(image, "xyzc")
    small = 1
    with pytest.raises(InputError, match="does not hold one tile; wanted at least"):
        tile_shape(volume, output, grid, batch=3, memory_bytes=small)
    slab, tile = tile_shape(volume, output, grid, batch=3, memory_bytes=SMALL)
    assert slab == 4 and tile[0] < SHAPE[1]  # several tiles: the test tests something
    tiled = run(image, tmp_path / "tiled", memory_gb=SMALL / 1e9, blend="bump")
    np.testing.assert_array_equal(whole.view(np.uint16), tiled.view(np.uint16))

    mesh = jax.make_mesh(
        (2, 1), ("data", "space"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
    sharded = run(image, tmp_path / "sharded", mesh=mesh, blend="bump")
    np.testing.assert_array_equal(whole.view(np.uint16), sharded.view(np.uint16))

    region = Box((3, 5, 0), (17, 18, 6))
    options = {"region": region, "shape": region.shape, "blend": "bump"}
    part = run(image, tmp_path / "part", **options)
    np.testing.assert_array_equal(part, whole[(slice(None), *region.slices)])


def test_a_region_reads_its_windows_and_each_voxel_once(tmp_path):
    shape, region = (40, 24, 24), Box((13, 9, 8), (27, 11, 16))
    reads = np.zeros(shape, int)

    def read(domain, chunk, _):
        x, y, z, _ = domain.index_exp
        reads[x, y, z] += 1
        chunk[...] = 0

    layout = ts.ChunkLayout(chunk_shape=[4, 4, 4, 1])
    image = ts.virtual_chunked(
        read, dtype=ts.uint8, shape=[*shape, 1], chunk_layout=layout
    )
    output = from_array(np.zeros((3, *region.shape), np.float32), "cxyz")
    predict_volume(
        network,
        PARAMS,
        Volume(image, "xyzc"),
        output,
        Grid(shape, WINDOW),
        batch_per_device=3,
        job=Job(region=region),
    )
    # Windows of 8 begin at each 4th voxel: those from 8 to 24 along x, 4 and 8 along y,
    # 4 to 12 along z touch the region.
    want = np.zeros(shape, int)
    want[8:32, 4:16, 4:20] = 1
    np.testing.assert_array_equal(reads, want)


def test_a_killed_run_goes_on_and_writes_the_same_bytes(tmp_path):
    image = draw(SHAPE)
    whole = run(image, tmp_path / "whole")

    class Killed(Exception):
        pass

    seen = []

    def kill_at_third(box, values):
        seen.append(box)
        if len(seen) == 3:
            raise Killed
        return {"planes": values.shape[1]}

    folder = tmp_path / "killed"
    with Manifest(folder / "raw.zarr", {"a": 1}) as manifest, pytest.raises(Killed):
        run(image, folder, manifest=manifest, observe=kill_at_third)
    with Manifest(folder / "raw.zarr", {"a": 1}) as manifest:
        assert manifest.keys == ["0:4,0:18,0:13", "4:8,0:18,0:13"]
        assert manifest.facts("0:4,0:18,0:13")["planes"] == 4
        # Another budget than before: other boxes, the same bytes.
        got = run(image, folder, manifest=manifest, memory_gb=SMALL / 1e9)
        assert all(Box.parse(key).start[0] >= 8 for key in manifest.keys[2:])
        again = len(manifest.keys)
        run(image, folder, manifest=manifest)  # everything is done: nothing is added
        assert len(manifest.keys) == again
    np.testing.assert_array_equal(whole.view(np.uint16), got.view(np.uint16))


def test_a_constant_network_gives_its_constant_everywhere(tmp_path):
    output = from_array(np.zeros((2, 9, 11, 5), np.float32), "cxyz")
    predict_volume(
        lambda params, images: jnp.full((*images.shape[:4], 3), params),
        np.float32(2.5),
        from_array(draw((9, 11, 5)), "xyzc"),
        output,
        Grid((9, 11, 5), (4, 4, 4)),
        conversion=Conversion(channels=(2, 0), activation="none", blend="bump"),
    )
    np.testing.assert_allclose(output.read(), 2.5, rtol=1e-6)


def test_float_images_are_taken_as_they_are(tmp_path):
    image = draw((9, 8, 8))
    as_float = (image / np.float32(255)).astype(np.float32)
    got = run(as_float, tmp_path / "b", normalization=Normalization("none"))
    np.testing.assert_array_equal(run(image, tmp_path / "a"), got)


@pytest.mark.parametrize(
    "options, text",
    [
        (
            {"channels": (0, 1, 4)},
            r"channels=\(0, 1, 4\) were asked of a network with 4",
        ),
        ({"channels": (0, 1)}, "output .* has axes cxyz and shape .*wanted c x y z of"),
        ({"activation": "relu"}, "predict.activation='relu' is not one of"),
        (
            {"normalization": Normalization("histogram")},
            "data.normalize is 'histogram'; wanted one of",
        ),
        ({"blend": "gauss"}, "predict.blend='gauss' is not one of"),
        ({"region": Box((0, 0, 0), (9, 9, 99))}, "roi 0:9,0:9,0:99 is not inside"),
        ({"grid": Grid((4, 4, 4), (4, 4, 4))}, "wanted x y z c over"),
    ],
)
def test_errors_say_what_came(tmp_path, options, text):
    with pytest.raises(InputError, match=text):
        run(draw((8, 8, 8)), tmp_path, **options)
