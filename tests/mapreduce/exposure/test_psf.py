from __future__ import annotations

import math
import pickle
from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest
from astropy.io import fits
from dask.base import tokenize

from mapreduce.exposure.box import Box
from mapreduce.exposure.cell_psf import CellPsf, PsfComponent
from mapreduce.exposure.psf import (
    DoubleGaussianPsf,
    GaussianPsf,
    KernelPsf,
    Psf,
    PsfexPsf,
    determinant_radius,
)


def gaussian(sigma, size, dx=0.0, dy=0.0):
    y, x = np.mgrid[:size, :size] - size // 2
    image = np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / (2 * sigma**2))
    return image / image.sum()


def oval(size=31):
    """Elongated towards +x +y."""
    y, x = np.mgrid[:size, :size] - size // 2
    return np.exp(-(x**2 + y**2 - 1.2 * x * y) / 8)


def centroid(image):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    ny, nx = image.shape
    total = image.sum()
    return (image * x).sum() / total - nx // 2, (image * y).sum() / total - ny // 2


def psfex(sampling=1.0, **fields):
    """The star's sigma grows along x, and its y position along y."""
    first = gaussian(2.0 / sampling, 31)
    planes = np.zeros((6, 31, 31))
    planes[0] = first
    planes[1] = 0.1 * (gaussian(3.0 / sampling, 31) - first)
    planes[3] = 0.1 * (gaussian(2.0 / sampling, 31, dy=1.0 / sampling) - first)
    fields = {"offset": (100, 200), "scale": (50, 50), **fields}
    return PsfexPsf(planes, 2, sampling=sampling, **fields)


def cell(index, box, psf, weight=1.0):
    return PsfComponent(index, Box(*box), psf, weight)


def cells():
    """Two overlapping cells, 0 <= x < 20 and 10 <= x < 30."""
    return CellPsf(
        [
            cell(0, (0, 0, 20, 10), GaussianPsf(1.0, size=11)),
            cell(1, (10, 0, 20, 10), GaussianPsf(2.0, size=21)),
        ]
    )


MODELS = {
    "gaussian": GaussianPsf(2.0),
    "double": DoubleGaussianPsf(1.5, 3.0, 0.1),
    "kernel": KernelPsf(oval()),
    "psfex": psfex(),
    "psfex, fine samples": psfex(sampling=0.6),
    "psfex, coarse samples": psfex(sampling=1.15),
    "cells": cells(),
}
each_model = pytest.mark.parametrize("psf", MODELS.values(), ids=MODELS.keys())


@each_model
def test_images_are_normalized_and_odd(psf):
    x, y = psf.average_position
    for image in (psf.compute_kernel_image(), psf.compute_image(x + 0.3, y - 0.4)):
        assert image.dtype == np.float64
        assert image.sum() == pytest.approx(1, abs=1e-14)
        assert image.shape[0] % 2 == image.shape[1] % 2 == 1
        assert image.flags.writeable


@each_model
@pytest.mark.parametrize(("dx", "dy"), [(0.25, -0.4), (-0.5, 0.1), (0.0, 0.5)])
def test_image_follows_subpixel_position(psf, dx, dy):
    x, y = np.rint(psf.average_position)
    still = centroid(psf.compute_image(x, y))
    moved = centroid(psf.compute_image(x + dx, y + dy))
    shift = x + dx - np.rint(x + dx), y + dy - np.rint(y + dy)
    assert np.subtract(moved, still) == pytest.approx(shift, abs=2e-3)


@each_model
def test_image_at_whole_pixels_is_the_kernel(psf):
    x, y = np.rint(psf.average_position)
    np.testing.assert_array_equal(psf.compute_image(x, y), psf.compute_kernel_image(x, y))


@each_model
def test_no_position_means_average_position(psf):
    np.testing.assert_array_equal(
        psf.compute_kernel_image(), psf.compute_kernel_image(*psf.average_position)
    )
    assert psf.sigma() == psf.sigma(*psf.average_position)


@each_model
def test_fwhm_is_that_of_a_gaussian(psf):
    assert psf.fwhm() == pytest.approx(2.3548200450309493 * psf.sigma(), rel=1e-14)


@each_model
def test_models_are_values(psf):
    copy = pickle.loads(pickle.dumps(psf))
    assert copy == psf
    assert copy is not psf
    assert hash(copy) == hash(psf)
    assert tokenize(copy) == tokenize(psf)
    np.testing.assert_array_equal(copy.compute_image(11.2, 4.9), psf.compute_image(11.2, 4.9))
    assert "\n" not in repr(psf)
    assert len(repr(psf)) < 100


def test_models_differ():
    models = [
        *MODELS.values(),
        GaussianPsf(2.0, size=31),
        KernelPsf(oval()[::-1]),
        psfex(offset=(100, 201)),
        CellPsf(cells().components[:1]),
        CellPsf(cells().components[::-1]),
    ]
    assert len({*models}) == len({tokenize(model) for model in models}) == len(models)
    assert GaussianPsf(2.0) != "GaussianPsf(2.0)"


@each_model
def test_models_are_immutable(psf):
    with pytest.raises(FrozenInstanceError):
        psf.average_position = (1.0, 1.0)


def test_arrays_are_private_and_read_only():
    array = oval()
    psf = KernelPsf(array)
    before = psf.compute_kernel_image()
    array[:] = 0
    np.testing.assert_array_equal(psf.compute_kernel_image(), before)
    for copy in (psf, pickle.loads(pickle.dumps(psf))):
        with pytest.raises(ValueError, match="read-only"):
            copy.array[0, 0] = 1


@pytest.mark.parametrize("call", ["compute_image", "compute_kernel_image", "sigma", "fwhm"])
def test_half_a_position_is_an_error(call):
    with pytest.raises(ValueError, match="both x and y or neither, got x=3, y=None"):
        getattr(MODELS["psfex"], call)(x=3)


@each_model
def test_nan_position_is_an_error(psf):
    with pytest.raises(ValueError, match=r"position \(nan, 2.0\) is not finite"):
        psf.compute_image(math.nan, 2.0)


def test_psf_of_ones_own_is_two_lines():
    @dataclass(frozen=True, eq=False)
    class Tophat(Psf):
        size: int

        def draw(self, x, y, dx, dy):
            return np.ones((self.size, self.size))

    assert Tophat(3) == Tophat(3) != Tophat(5)
    assert CellPsf([cell(0, (0, 0, 5, 5), Tophat(5))]).compute_kernel_image()[0, 0] == 0.04


def test_unnormalizable_model_names_the_place():
    @dataclass(frozen=True, eq=False)
    class Hole(Psf):
        def draw(self, x, y, dx, dy):
            return -np.ones((3, 3))

    with pytest.raises(ValueError, match=r"Hole\(\) has sum -9 at \(4, 5\)"):
        Hole().compute_kernel_image(4, 5)


# Gaussians


def test_gaussian():
    psf = GaussianPsf(1.7, size=15)
    assert psf.sigma() == psf.sigma(3, 4) == 1.7
    np.testing.assert_allclose(psf.compute_kernel_image(), gaussian(1.7, 15), rtol=1e-12)
    np.testing.assert_allclose(
        psf.compute_image(30.75, -0.4), gaussian(1.7, 15, -0.25, -0.4), rtol=1e-12
    )


def test_half_pixels_round_to_even_like_rint():
    psf = GaussianPsf(1.7, size=15)
    np.testing.assert_allclose(
        psf.compute_image(2.5, 3.5), gaussian(1.7, 15, 0.5, -0.5), rtol=1e-12
    )


def test_default_size_reaches_five_sigma():
    assert GaussianPsf(2.0).size == 21
    assert DoubleGaussianPsf(1.0, 3.0, 0.1).size == 31


def test_double_gaussian_ratio_is_of_peaks():
    image = DoubleGaussianPsf(1.0, 3.0, 0.25, size=31).compute_kernel_image()
    r2 = 8**2
    expected = 0.25 * np.exp(-r2 / 18) / 1.25
    assert image[15, 15 + 8] / image[15, 15] == pytest.approx(expected, rel=1e-12)


def test_double_gaussian_without_second_is_a_gaussian():
    psf = DoubleGaussianPsf(2.0, 5.0, 0.0, size=31)
    assert psf.sigma() == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("sigma", [0, -1.0, math.nan, math.inf])
def test_bad_sigma(sigma):
    with pytest.raises(ValueError, match="sigma must be positive and finite"):
        GaussianPsf(sigma)
    with pytest.raises(ValueError, match="sigma2 must be positive and finite"):
        DoubleGaussianPsf(1.0, sigma, 0.1, size=3)


@pytest.mark.parametrize("options", [{"size": 2**40 + 1}, {}])
def test_an_image_that_nothing_can_hold(options):
    with pytest.raises(ValueError, match=r"has \d+ pixels a side, more than 4096"):
        GaussianPsf(1e9, **options)


@pytest.mark.parametrize("size", [0, -3, 4, 4.5])
def test_bad_size(size):
    with pytest.raises(ValueError, match="size must be an odd number of pixels"):
        GaussianPsf(1.0, size=size)


def test_bad_ratio():
    with pytest.raises(ValueError, match="ratio must be zero or positive, got -0.1"):
        DoubleGaussianPsf(1.0, 2.0, -0.1)


# A fixed image


def test_kernel_is_kept_exactly():
    array = np.array([[0.0, 1, 0, 0, 0], [1, 4, 2, 0, 0], [0, 1, 0, 0, 0]])
    np.testing.assert_array_equal(KernelPsf(array).compute_kernel_image(7, 8), array / 9)


@pytest.mark.parametrize(("sigma", "tolerance"), [(1.0, 3e-3), (1.5, 1e-4), (2.5, 1e-6)])
def test_kernel_shifts_like_the_star_it_shows(sigma, tolerance):
    image = KernelPsf(gaussian(sigma, 31)).compute_image(10.5, 20.3)
    star = gaussian(sigma, 31, 0.5, 0.3)
    assert np.abs(image - star).max() < tolerance * star.max()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((4, 5)), "odd in both sizes.*got 4 x 5: pad or cut"),
        (np.ones(5), r"must have 2 dimensions, none empty; got shape \(5,\)"),
        (np.ones((0, 5)), r"none empty; got shape \(0, 5\)"),
        ([[1, 2, math.nan]], r"must be finite; 1 values are not, the first at \[0, 2\]"),
        (np.zeros((3, 3)), "positive sum, got 0"),
        (-np.ones((3, 3)), "positive sum, got -9"),
    ],
)
def test_bad_kernel(array, message):
    with pytest.raises(ValueError, match=message):
        KernelPsf(array)


# Width


@pytest.mark.parametrize("sigma", [1.0, 1.3, 2.0, 4.0])
@pytest.mark.parametrize("shift", [(0, 0), (0.3, -0.5), (2.2, 1.0)])
def test_radius_of_a_gaussian_is_its_sigma(sigma, shift):
    image = 1000 * gaussian(sigma, 2 * math.ceil(6 * sigma) + 1, *shift)
    assert determinant_radius(image) == pytest.approx(sigma, rel=2e-3 if sigma == 1 else 1e-3)


def test_radius_of_an_ellipse():
    y, x = np.mgrid[-25:26, -25:26]
    a, b = (x + y) / math.sqrt(2), (y - x) / math.sqrt(2)
    image = np.exp(-(a**2) / (2 * 4**2) - b**2 / (2 * 2**2))
    assert determinant_radius(image) == pytest.approx(math.sqrt(8), rel=1e-3)


def test_radius_does_not_mind_noise_in_the_wings():
    noise = np.random.default_rng(1).normal(0, 0.01, (61, 61))
    star = gaussian(2.0, 61)
    assert determinant_radius(star + noise * star.max()) == pytest.approx(2.0, rel=0.02)


def test_radius_of_one_pixel_is_a_fraction_of_a_pixel():
    image = np.zeros((5, 5))
    image[2, 2] = 1
    assert 0.2 < KernelPsf(image).sigma() < 0.6


@pytest.mark.parametrize("image", [np.zeros((5, 5)), -gaussian(1, 9)])
def test_radius_of_nothing(image):
    with pytest.raises(ValueError, match="positive peak and a positive sum"):
        determinant_radius(image)


def test_radius_of_noise_does_not_converge():
    image = np.indices((9, 9)).sum(axis=0) % 2 - 0.49
    with pytest.raises(ValueError, match="9 x 9 image did not converge"):
        determinant_radius(image)


# PSFEx


def test_psfex_terms_run_fastest_in_x():
    # 1, u, u2, v, uv, v2 get different pixels, so that the image spells the terms.
    planes = np.zeros((6, 3, 3))
    planes.reshape(6, 9)[np.arange(6), [4, 0, 1, 2, 3, 5]] = 1
    psf = PsfexPsf(planes, 2, offset=(10, 20), scale=(2, 5), origin=(100, 1000))
    u, v = 3.0, 0.5
    expected = np.array([[u, u**2, v], [u * v, 1, v**2], [0, 0, 0]])
    image = psf.compute_kernel_image(x=100 + 10 + 2 * u, y=1000 + 20 + 5 * v)
    np.testing.assert_allclose(image, expected / expected.sum(), atol=1e-15)


def test_psfex_average_position():
    assert psfex().average_position == (100.0, 200.0)
    assert psfex(origin=(-1, 7)).average_position == (99.0, 207.0)
    assert psfex(average_position=(3, 4)).average_position == (3.0, 4.0)


@pytest.mark.parametrize(("sampling", "half"), [(1.0, 15), (0.6, 9), (1.15, 17)])
def test_psfex_sampling_does_not_change_the_star(sampling, half):
    psf = psfex(sampling)
    image = psf.compute_kernel_image()
    assert image.shape == (2 * half + 1, 2 * half + 1)
    np.testing.assert_allclose(image, gaussian(2.0, 2 * half + 1), atol=3e-5)
    assert psf.sigma() == pytest.approx(2.0, rel=1e-3)


def test_psfex_varies():
    psf = psfex()
    assert psf.sigma(x=150, y=200) > 1.02 * psf.sigma(x=100, y=200)
    assert centroid(psf.compute_kernel_image(x=100, y=250))[1] == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"planes": np.ones((4, 3, 3))}, "degree 1 in x and y needs 3 planes, got 4"),
        ({"planes": np.ones((3, 3))}, r"must have 3 dimensions, none empty; got shape \(3, 3\)"),
        ({"planes": np.full((3, 3, 3), np.nan)}, "PSFEx planes must be finite"),
        ({"degree": -1}, "degree -1"),
        ({"sampling": 0}, "sampling must be positive and finite, got 0"),
        ({"sampling": 1e-9}, r"sampling must be 0\.001 pixels or more, got 1e-09"),
        ({"sampling": 1e9}, r"the PSF's image has \d+ pixels a side, more than 4096"),
        ({"scale": (1, -2)}, "scale must be positive and finite, got -2"),
        ({"offset": (math.nan, 0)}, "two finite numbers"),
    ],
)
def test_bad_psfex(fields, message):
    fields = {"planes": np.ones((3, 3, 3)), "degree": 1, **fields}
    with pytest.raises(ValueError, match=message):
        PsfexPsf(**fields)


def test_psfex_agrees_with_lsst(shared):
    # The file also holds the moments that the LSST stack measured on this PSF at the CCD's center.
    path = shared / "data/exposures/megacam_calexp/calexp-849375-12.fits.fz"
    with fits.open(path) as hdus:
        part = next(
            h.data[0] for h in hdus if "_comp" in getattr(h, "columns", fits.ColDefs([])).names
        )
        psf = PsfexPsf(
            part["_comp"].reshape(part["_size"][::-1]),
            int(part["degree"]),
            offset=part["_context_first"],
            scale=part["_context_second"],
            sampling=0.5,
        )
    assert psf.sigma(1023.5, 2305.5) == pytest.approx(2.4520119284186555, rel=1e-3)


# Cells


def test_cells_mean_where_they_overlap():
    psf = cells()
    expected = gaussian(2.0, 21)
    expected[5:16, 5:16] += gaussian(1.0, 11)
    np.testing.assert_allclose(psf.compute_kernel_image(15, 5), expected / 2, rtol=1e-12)
    for x, only in ((5, psf.components[0].psf), (25, psf.components[1].psf)):
        np.testing.assert_array_equal(psf.compute_kernel_image(x, 5), only.compute_kernel_image())


def test_cells_weights():
    one, two = GaussianPsf(1.0, size=11), GaussianPsf(2.0, size=11)
    box = (0, 0, 5, 5)
    psf = CellPsf([cell(0, box, one, 3.0), cell(1, box, two), cell(2, box, two)])
    expected = (3 * gaussian(1.0, 11) + 2 * gaussian(2.0, 11)) / 5
    np.testing.assert_allclose(psf.compute_kernel_image(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "active"),
    [
        (-0.5, 0, [0]),
        (9.499, 0, [0]),
        (9.5, 0, [0, 1]),
        (19.499, 9.499, [0, 1]),
        (19.5, 0, [1]),
        (29.499, -0.5, [1]),
    ],
)
def test_cells_are_half_open_on_pixel_edges(x, y, active):
    psf = cells()
    assert [c.index for c in psf.components_at(x=x, y=y)] == active
    assert len(psf.compute_image(x, y)) == (11 if active == [0] else 21)


@pytest.mark.parametrize(("x", "y"), [(-0.501, 0), (29.5, 0), (5, 9.5), (5, -0.501), (1e9, 5)])
def test_outside_of_every_cell(x, y):
    psf = cells()
    assert psf.components_at(x=x, y=y) == ()
    message = rf"position \({x:g}, {y:g}\) is in none of the 2 cells, .*Box\(x0=0, y0=0, width=30"
    for call in (psf.compute_image, psf.compute_kernel_image, psf.sigma):
        with pytest.raises(ValueError, match=message.replace("+", r"\+")):
            call(x, y)


def test_cells_are_drawn_at_whole_pixels():
    varying = psfex()
    psf = CellPsf([cell(0, (100, 200, 50, 50), varying)])
    np.testing.assert_array_equal(
        psf.compute_kernel_image(120.4, 210.3), varying.compute_kernel_image(120, 210)
    )
    # 100.5 is on pixel 101: pixels are half-open.
    np.testing.assert_array_equal(
        psf.compute_kernel_image(100.5, 210), varying.compute_kernel_image(101, 210)
    )


def test_cells_of_cells():
    inner = cells()
    psf = CellPsf([cell(0, (0, 0, 15, 10), inner), cell(1, (15, 0, 15, 10), inner)])
    for x in (-0.5, 5, 9.5, 14.5, 17.2, 29.4):
        np.testing.assert_array_equal(
            psf.compute_kernel_image(x, 3), inner.compute_kernel_image(x, 3)
        )


def test_equal_psfs_are_drawn_once():
    drawn = []

    @dataclass(frozen=True, eq=False)
    class Counted(Psf):
        sigma_: float

        def draw(self, x, y, dx, dy):
            drawn.append(self)
            return gaussian(self.sigma_, 11, dx, dy)

    box = (0, 0, 10, 10)
    psf = CellPsf([cell(i, box, Counted(2.0)) for i in range(4)])
    assert psf.compute_image(5.2, 5) == pytest.approx(gaussian(2.0, 11, 0.2, 0), rel=1e-12)
    assert len(drawn) == 1
    CellPsf([*psf.components, cell(4, box, Counted(1.0))]).compute_image(5.2, 5)
    assert len(drawn) == 3


def test_cells_width():
    psf = cells()
    assert psf.sigma(5, 5) == 1.0
    assert psf.sigma(25, 5) == 2.0
    assert psf.sigma(15, 5) == determinant_radius(psf.compute_kernel_image(15, 5))


@pytest.mark.slow
def test_look_up_finds_what_a_scan_finds():
    rng = np.random.default_rng(3)
    boxes = [(i * 10 - 2, j * 7 - 2, 14, 11) for i in range(9) for j in range(9)]
    boxes += [(0, 0, 90, 63), (-40, 20, 200, 1), (30, -50, 1, 200), (5, 5, 1, 1), (5, 5, 1, 1)]
    boxes += [(*rng.integers(0, 80, 2), *rng.integers(1, 40, 2)) for _ in range(30)]
    psf = CellPsf([cell(i, box, GaussianPsf(1.0)) for i, box in enumerate(boxes)])
    edges = rng.integers(-50, 160, (500, 2)) - 0.5
    for x, y in [*rng.uniform(-50, 160, (500, 2)), *edges]:
        expected = [c.index for c in psf.components if c.box.covers(x=x, y=y)]
        assert [c.index for c in psf.components_at(x=x, y=y)] == expected


def test_cells_geometry():
    psf = cells()
    assert len(psf) == 2
    assert psf.bbox == Box(0, 0, 30, 10)
    assert psf.average_position == (14.5, 4.5)
    assert [c.index for c in psf.components] == [0, 1]


def test_average_position_is_always_in_a_cell():
    gauss = GaussianPsf(1.0)
    # The weighted mean of the centers is x = 42, between the cells and nearer to the first.
    apart = CellPsf([cell(0, (0, 0, 5, 5), gauss, 1.5), cell(1, (100, 0, 5, 5), gauss)])
    assert apart.average_position == (2.0, 2.0)
    far = CellPsf([cell(0, (5000, 7000, 4, 3), gauss)])
    assert far.average_position == (5001.5, 7001.0)
    assert far.compute_kernel_image().shape == (11, 11)


def test_cells_pickle_without_their_index():
    psf = cells()
    fresh = len(pickle.dumps(psf))
    psf.compute_image(5, 5)
    hash(psf)
    assert len(pickle.dumps(psf)) == fresh


def test_bad_components():
    gauss = GaussianPsf(1.0)
    with pytest.raises(ValueError, match="at least one component"):
        CellPsf([])
    with pytest.raises(TypeError, match="cell 7: expected a Psf, got None"):
        cell(7, (0, 0, 5, 5), None)
    with pytest.raises(ValueError, match="cell 7 has an empty box"):
        cell(7, (0, 0, 0, 5), gauss)
    with pytest.raises(ValueError, match="weight of cell 7 must be positive"):
        cell(7, (0, 0, 5, 5), gauss, weight=0)
