import pickle
from collections.abc import MutableMapping

import dask
import dask.array as da
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.utils.masked import Masked
from astropy.wcs import WCS
from dask.base import is_dask_collection, tokenize

from mapreduce import Box, Exposure, GaussianPsf, MaskPlanes
from tests.support import ArrayPlane, assert_same, make_exposure, unread

KINDS = {"dask": lambda exposure: exposure.chunk(7), "unread": unread}


@pytest.fixture
def exposure():
    exposure = make_exposure(12, 9, origin=(100, 200))
    exposure.wcs = WCS(naxis=2)
    exposure.meta = {"OBJECT": "M 31", "LIST": [1]}
    return exposure


# What can be made


def test_parts_and_their_defaults():
    exposure = Exposure(np.ones((3, 4), "f4"))
    assert exposure.bbox == Box(0, 0, 4, 3)
    assert (exposure.shape, exposure.origin) == ((3, 4), (0, 0))
    assert exposure.mask_planes == MaskPlanes.lsst()
    parts = ("variance", "mask", "wcs", "psf", "report")
    assert {getattr(exposure, name) for name in parts} == {None}
    assert exposure.meta == {}
    assert list(exposure.planes) == ["image"]


def test_an_array_is_kept_not_copied():
    image = np.ones((3, 4), "f4")
    assert Exposure(image).image is image


def test_lists_become_arrays():
    assert Exposure([[1.0, 2.0]]).image.dtype == "f8"


@pytest.mark.parametrize(
    ("planes", "error", "match"),
    [
        ({"image": None}, TypeError, "image"),
        ({"image": np.ones(4)}, ValueError, r"image must have two dimensions.*shape \(4,\)"),
        ({"image": np.ones((0, 4))}, ValueError, r"image must have two dimensions and pixels"),
        ({"image": np.ones((1, 4, 4))}, ValueError, r"two dimensions.*shape \(1, 4, 4\)"),
        (
            {"image": np.ones((3, 4), complex)},
            TypeError,
            "image is complex128; it must be",
        ),
        ({"image": np.ones((3, 4), bool)}, TypeError, "image is bool"),
        ({"image": np.array([["a"]])}, TypeError, "image is <U1"),
        ({"variance": np.ma.ones((3, 4))}, TypeError, "variance is a MaskedArray.*mask as mask="),
        ({"image": np.ones((3, 4)) * u.electron}, TypeError, "image is a Quantity.*BUNIT"),
        ({"variance": np.ones((3, 4), int)}, TypeError, "variance is int64; it must be of floats"),
        ({"variance": np.ones((4, 3))}, ValueError, "image is 3 x 4 but variance is 4 x 3"),
        ({"variance": da.ones((4, 3))}, ValueError, "image is 3 x 4 but variance is 4 x 3"),
        ({"mask": np.ones((3, 4))}, TypeError, "mask is float64; it must be of integers"),
        ({"mask": np.ones((3, 5), int)}, ValueError, "image is 3 x 4 but mask is 3 x 5.*one box"),
        ({"mask": np.full((3, 4), 1 << 40)}, ValueError, "uses bits above 31"),
        ({"origin": 5}, TypeError, r"origin must be two integers \(x, y\), got 5"),
        ({"origin": (0.5, 0)}, TypeError, "origin must be two integers"),
        ({"origin": (1, 2, 3)}, TypeError, "origin must be two integers"),
        ({"wcs": {"CRVAL1": 0}}, TypeError, "wcs must be an astropy.wcs.WCS, got dict"),
        ({"mask_planes": {"BAD": 50}}, ValueError, "bit 50 is outside"),
    ],
)
def test_bad_input(planes, error, match):
    with pytest.raises(error, match=match):
        Exposure(**{"image": np.ones((3, 4)), **planes})


ONES = np.ones((3, 4))
MORE_THAN_NUMBERS = {
    "MaskedArray": np.ma.array(ONES, mask=ONES > 0),
    "MaskedNDArray": Masked(ONES, mask=ONES > 0),
    "MaskedQuantity": Masked(ONES * u.Jy, mask=ONES > 0),
    "Quantity": ONES * u.Jy,
}


@pytest.mark.parametrize("plane", ["image", "variance", "mask"])
@pytest.mark.parametrize("kind", MORE_THAN_NUMBERS)
@pytest.mark.parametrize("held", ["in memory", "by dask", "in a list"])
def test_no_mask_and_no_unit_is_lost(plane, kind, held):
    values = MORE_THAN_NUMBERS[kind]
    if held == "by dask":
        values = da.from_array(values, asarray=False, name=kind)
    elif held == "in a list":
        values = list(values)
    exposure = Exposure(ONES)
    if (plane, held) != ("image", "in memory") or kind.endswith("Quantity"):
        with pytest.raises(
            TypeError, match=f"{plane} is a {kind}; pass plain numbers .the mask as"
        ):
            Exposure(**({"image": ONES} | {plane: values}))
    with pytest.raises(TypeError, match=f"{plane} is a {kind}"):
        exposure.replace(**{plane: values})
    with pytest.raises(TypeError, match=f"{plane} is a {kind}"):
        setattr(exposure, plane, values)


@pytest.mark.parametrize("masked", [np.ma.array, Masked])
@pytest.mark.parametrize("mask", [None, np.array([[4, 0, 2]], np.int32)])
def test_what_is_masked_is_bad(masked, mask):
    image = masked(np.array([[1.0, 2.0, 3.0]]), mask=np.array([[True, False, True]]))
    exposure = Exposure(image, mask=mask, mask_planes={"CR": 2})
    assert type(exposure.image) is np.ndarray
    bad, cr = (1 << exposure.mask_planes[name] for name in ("BAD", "CR"))
    np.testing.assert_array_equal(exposure.mask & bad != 0, [[True, False, True]])
    np.testing.assert_array_equal(exposure.mask & cr != 0, [[mask is not None, False, False]])
    if mask is not None:
        np.testing.assert_array_equal(exposure.mask & ~bad, mask)


def test_arrays_with_labels():
    image = pytest.importorskip("xarray").DataArray(ONES, attrs={"units": "Jy"})
    with pytest.raises(TypeError, match=r"image is a DataArray; .* of xarray the \.data"):
        Exposure(image)
    assert Exposure(image.data).image is image.data
    frame = pytest.importorskip("pandas").DataFrame(ONES)
    np.testing.assert_array_equal(Exposure(frame).image, ONES)


@pytest.mark.parametrize("kind", [fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU])
@pytest.mark.parametrize("plane", ["image", "variance", "mask"])
def test_a_section_of_an_open_file_is_not_for_threads(tmp_path, kind, plane):
    primary = [] if kind is fits.PrimaryHDU else [fits.PrimaryHDU()]
    fits.HDUList([*primary, kind(ONES)]).writeto(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits") as hdus:
        with pytest.raises(TypeError, match=rf"threads cannot share; .*path, {plane}=.*hdu\.data"):
            Exposure(**({"image": ONES} | {plane: hdus[len(primary)].section}))
        np.testing.assert_array_equal(Exposure(hdus[len(primary)].data).image, ONES)


def test_unknown_chunks():
    image = da.ones((6, 4), chunks=3)
    with pytest.raises((TypeError, ValueError), match="chunk"):
        Exposure(image[image[:, 0] > 0])


def test_setting_planes_is_checked_too(exposure):
    with pytest.raises(ValueError, match="image is 9 x 12 but image is 12 x 9"):
        exposure.image = exposure.image.T
    with pytest.raises(TypeError, match="needs an image plane"):
        exposure.image = None
    with pytest.raises(TypeError, match="variance is int64"):
        exposure.variance = np.ones((9, 12), int)
    exposure.variance = None
    exposure.mask = None
    assert list(exposure.planes) == ["image"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "u4", "i4", "i8", "u8", ">i2", ">i4"])
@pytest.mark.parametrize("kind", ["numpy", "dask", "unread"])
def test_masks_become_int32(dtype, kind):
    bits = np.array([[0, 1, 64], [127, 5, 3]], dtype)
    mask = {"numpy": bits, "dask": da.from_array(bits, chunks=2), "unread": ArrayPlane(bits)}[kind]
    exposure = Exposure(np.ones((2, 3)), mask=mask)
    assert exposure.compute().mask.dtype == "i4"
    np.testing.assert_array_equal(exposure.compute().mask, bits)
    if kind != "unread":
        assert exposure.mask.dtype == "i4"


def test_a_mask_read_by_block_is_int32_too():
    exposure = Exposure(np.ones((1, 2)), mask=ArrayPlane(np.array([[1, 2]], "u1")))
    assert exposure.mask.dtype == "i4"
    assert (exposure.mask & exposure.mask_planes.bitmask("NO_DATA")).compute().tolist() == [[0, 0]]


def test_bits_that_do_not_fit_in_a_lazy_mask():
    exposure = Exposure(np.ones((1, 2)), mask=da.from_array(np.array([[1 << 40, 1]])))
    with pytest.raises(ValueError, match="uses bits above 31"):
        exposure.compute()


@pytest.mark.parametrize("dtype", ["u4", "i8", "u8"])
def test_the_highest_bit_is_kept(dtype):
    exposure = Exposure(np.ones((1, 2)), mask=np.array([[1 << 31, 1]], dtype))
    assert exposure.mask.view("u4").tolist() == [[1 << 31, 1]]


def test_true_in_a_mask_is_bad():
    mask = np.array([[True, False]])
    planes = {"SAT": 0, "BAD": 3}
    for given in (mask, da.from_array(mask), ArrayPlane(mask)):
        assert np.asarray(Exposure([[1.0, 2.0]], mask=given).mask).tolist() == [[1, 0]]
        exposure = Exposure([[1.0, 2.0]], mask=given, mask_planes=planes)
        assert np.asarray(exposure.mask).tolist() == [[8, 0]]
        assert exposure.mask.dtype == "i4"


def test_true_in_a_mask_without_such_a_plane():
    exposure = Exposure([[1.0, 2.0]], mask=np.array([[True, False]]), mask_planes={"SAT": 0})
    bad = exposure.mask_planes.bitmask("BAD")
    assert (exposure.mask & bad).tolist() == [[bad, 0]]


@pytest.mark.parametrize("kind", ["numpy", "dask", "unread"])
def test_big_endian_planes(kind):
    image, variance = (np.array([[1.5, 2.5]], dtype) for dtype in (">f4", ">f8"))
    wrap = {"numpy": np.array, "dask": da.from_array, "unread": ArrayPlane}[kind]
    exposure = Exposure(wrap(image), wrap(variance)).compute()
    assert exposure.image.dtype == np.dtype("f4")
    assert exposure.variance.dtype == np.dtype("f8")
    assert exposure.image.dtype.isnative
    assert exposure.image.tolist() == exposure.variance.tolist() == [[1.5, 2.5]]


# Parts and variations


def test_cutout_is_a_view(exposure):
    part = exposure.cutout(Box(103, 201, 5, 2))
    assert part.bbox == Box(103, 201, 5, 2)
    np.testing.assert_array_equal(part.image, exposure.image[1:3, 3:8])
    assert all(np.shares_memory(part.planes[n], p) for n, p in exposure.planes.items())
    assert (part.wcs, part.psf) == (exposure.wcs, exposure.psf)
    assert part.mask_planes == exposure.mask_planes
    assert exposure.cutout(exposure.bbox).shape == exposure.shape


@pytest.mark.parametrize("kind", KINDS)
def test_cutout_of_lazy_planes(kind, exposure):
    box = Box(103, 201, 5, 2)
    part = KINDS[kind](exposure).cutout(box)
    assert is_dask_collection(part)
    assert_same(part.compute(), exposure.cutout(box))
    inner = Box(104, 202, 2, 1)
    assert_same(part.cutout(inner).compute(), exposure.cutout(inner))


@pytest.mark.parametrize(
    ("box", "error", "match"),
    [
        (Box(99, 200, 2, 2), ValueError, "reaches outside of"),
        (Box(100, 200, 13, 9), ValueError, "reaches outside of"),
        (Box(0, 0, 2, 2), ValueError, "reaches outside of"),
        (Box(100, 200, 0, 5), ValueError, "is empty"),
        ((100, 200, 2, 2), TypeError, "cutout takes a Box, got tuple"),
    ],
)
def test_cutout_of_what_is_not_there(box, error, match, exposure):
    with pytest.raises(error, match=match):
        exposure.cutout(box)


def test_copy_is_writeable_and_separate(exposure):
    for plane in exposure.planes.values():
        plane.flags.writeable = False
    twin = exposure.copy()
    assert_same(twin, exposure)
    for plane in twin.planes.values():
        plane[...] = 0
    twin.meta["LIST"].append(2)
    assert exposure.image.all()
    assert exposure.meta == {"OBJECT": "M 31", "LIST": [1]}


def test_replace(exposure):
    image = np.zeros((9, 12), "f8")
    other = exposure.replace(image=image, psf=None, meta={"A": 1})
    assert other.image is image
    assert other.variance is exposure.variance
    assert (other.psf, other.meta, other.bbox) == (None, {"A": 1}, exposure.bbox)
    assert exposure.psf is not None
    assert exposure.replace(mask=None).mask is None


def test_replace_mask_planes_and_a_boolean_mask_together(exposure):
    planes = {"SAT": 0, "BAD": 6}
    other = exposure.replace(mask=np.ones((9, 12), bool), mask_planes=planes)
    assert (other.mask == 64).all()
    assert other.mask_planes == planes


@pytest.mark.parametrize(
    ("parts", "error", "match"),
    [
        ({"color": 1}, TypeError, r"an Exposure has no \['color'\]; choose from"),
        ({"image": np.ones((2, 2))}, ValueError, "image is 9 x 12 but image is 2 x 2"),
        ({"mask": np.ones((9, 12))}, TypeError, "mask is float64"),
        ({"image": None}, TypeError, "needs an image plane"),
    ],
)
def test_replace_with_what_does_not_fit(parts, error, match, exposure):
    with pytest.raises(error, match=match):
        exposure.replace(**parts)


def test_astype(exposure):
    other = exposure.astype("f8")
    assert (other.image.dtype, other.variance.dtype) == ("f8", "f4")


@pytest.mark.parametrize(
    ("size", "chunks"),
    [(5, ((5, 4), (5, 5, 2))), ((6, 4), ((4, 4, 1), (6, 6))), (100, ((9,), (12,)))],
)
@pytest.mark.parametrize("kind", ["numpy", *KINDS])
def test_chunk(kind, size, chunks, exposure):
    lazy = KINDS.get(kind, lambda e: e)(exposure).chunk(size)
    assert {plane.chunks for plane in lazy.planes.values()} == {chunks}
    assert_same(lazy.compute(), exposure)


# Arithmetic


def test_adding_leaves_the_variance(exposure):
    array = np.arange(108, dtype="f4").reshape(9, 12)
    pairs = [
        (exposure + 1, exposure.image + 1),
        (1 + exposure, exposure.image + 1),
        (exposure - 2.5, exposure.image - np.float32(2.5)),
        (2.5 - exposure, np.float32(2.5) - exposure.image),
        (exposure + array, exposure.image + array),
        (array + exposure, exposure.image + array),
        (array - exposure, array - exposure.image),
        (-exposure, -exposure.image),
    ]
    for result, image in pairs:
        np.testing.assert_array_equal(result.image, image, strict=True)
        assert result.variance is exposure.variance
        assert result.mask is exposure.mask
        assert result.bbox == exposure.bbox


def test_scaling_scales_the_variance(exposure):
    array = np.full((9, 12), 4, "f4")
    for result, factor in [
        (exposure * 2, 2),
        (2 * exposure, 2),
        (exposure * np.float32(-3), -3),
        (exposure / 2, 0.5),
        (exposure * array, 4),
        (array * exposure, 4),
        (exposure / array, 0.25),
    ]:
        np.testing.assert_array_equal(result.image, exposure.image * np.float32(factor))
        np.testing.assert_allclose(result.variance, exposure.variance * factor**2, rtol=1e-6)
        assert (result.image.dtype, result.variance.dtype) == ("f4", "f4")


def test_arithmetic_without_variance():
    exposure = Exposure([[1.0, 2.0]])
    assert (exposure * 3).image.tolist() == [[3, 6]]
    assert (exposure / 2).variance is None


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2"])
def test_the_square_of_a_small_integer_factor_does_not_overflow(dtype):
    exposure = Exposure(np.ones((1, 2), "f4"), np.ones((1, 2), "f4"))
    result = exposure * np.array([[100, 3]], dtype)
    assert result.variance.tolist() == [[10_000, 9]]


def test_arithmetic_stays_lazy(exposure):
    lazy = exposure.chunk(5)
    factor = da.full((9, 12), 2.0, dtype="f4", chunks=4)
    for result in (lazy * 2 + 1, factor * lazy + 1, lazy * factor.compute() + 1):
        assert is_dask_collection(result)
        assert_same(result.compute(), exposure * 2 + 1)


@pytest.mark.parametrize("other", ["2", None, [1, 2], Exposure([[1.0]])])
def test_arithmetic_with_something_else(other, exposure):
    for operation in (
        lambda: exposure + other,
        lambda: exposure - other,
        lambda: exposure * other,
        lambda: exposure / other,
    ):
        with pytest.raises(TypeError, match="operand|multiply"):
            operation()


def test_arithmetic_with_an_array_of_another_shape(exposure):
    with pytest.raises(ValueError, match="exposure is 9 x 12 but the array is 12"):
        exposure * np.ones(12)


# The dask collection protocol


def test_in_memory_is_not_a_collection(exposure):
    assert not is_dask_collection(exposure)
    assert exposure.compute() is exposure
    assert dask.compute(exposure)[0] is exposure
    assert dask.delayed(lambda e: e.bbox)(exposure).compute() == exposure.bbox


@pytest.mark.parametrize("kind", KINDS)
def test_compute(kind, exposure):
    lazy = KINDS[kind](exposure)
    assert is_dask_collection(lazy)
    for computed in (lazy.compute(), dask.compute([lazy])[0][0]):
        assert not is_dask_collection(computed)
        assert_same(computed, exposure)
        assert (computed.wcs, computed.psf) == (exposure.wcs, exposure.psf)
        assert computed.meta == exposure.meta
    assert is_dask_collection(lazy)


def test_compute_of_a_mixed_exposure(exposure):
    mixed = exposure.replace(variance=exposure.chunk(5).variance)
    assert is_dask_collection(mixed)
    assert_same(mixed.compute(), exposure)
    assert mixed.compute().image is exposure.image


def test_a_lazy_psf(exposure):
    psf = dask.delayed(GaussianPsf)(3.0)
    lazy = exposure.replace(psf=psf)
    assert is_dask_collection(lazy)
    assert lazy.compute().psf == GaussianPsf(3.0)
    assert lazy.persist().psf.compute() == GaussianPsf(3.0)


@pytest.mark.parametrize("kind", KINDS)
def test_persist(kind, exposure):
    kept = KINDS[kind](exposure).persist()
    assert is_dask_collection(kept)
    assert_same(kept.compute(), exposure)
    np.testing.assert_array_equal(kept.image.max().compute(), exposure.image.max())


def test_persist_on_a_cluster(exposure, client):
    kept = client.persist(exposure.chunk(5))
    assert_same(kept.compute(), exposure)
    assert_same(client.gather(client.compute(unread(exposure))), exposure)


@pytest.mark.parametrize("kind", KINDS)
def test_optimize(kind, exposure):
    (optimized,) = dask.optimize(KINDS[kind](exposure))
    assert_same(optimized.compute(), exposure)


@pytest.mark.parametrize("kind", KINDS)
def test_delayed_functions_get_the_pixels(kind, exposure):
    total = dask.delayed(lambda e: e.image.sum())(KINDS[kind](exposure))
    assert total.compute() == exposure.image.sum()


def test_computing_does_not_share_the_header(exposure):
    lazy = exposure.chunk(5)
    lazy.compute().meta["KEY"] = 1
    assert "KEY" not in lazy.meta


@pytest.mark.parametrize("kind", KINDS)
def test_names_follow_the_content(kind, exposure):
    make = KINDS[kind]
    lazy = make(exposure)
    assert tokenize(lazy) == tokenize(lazy.replace())
    if kind == "unread":
        assert tokenize(lazy) == tokenize(make(exposure))
    others = [
        lazy.replace(psf=None),
        lazy.replace(wcs=None),
        lazy.replace(meta={}),
        lazy.replace(mask=None),
        lazy.replace(mask_planes={"BAD": 0}),
        lazy.cutout(Box(100, 200, 12, 8)),
        make(exposure * 2),
    ]
    names = {tokenize(other) for other in [lazy, *others]}
    assert len(names) == len(others) + 1


class Unpicklable(ArrayPlane):
    """As an open file: it has no name that stays the same."""

    __dask_tokenize__ = None

    def __reduce__(self):
        raise TypeError("cannot be pickled")


def test_a_source_that_cannot_be_pickled(exposure):
    lazy = exposure.replace(image=Unpicklable(exposure.image))
    assert_same(lazy.compute(scheduler="threads"), exposure)


def test_pickle(exposure):
    for given in (exposure, exposure.chunk(5), unread(exposure)):
        twin = pickle.loads(pickle.dumps(given))
        assert_same(twin.compute(), exposure)
        assert (twin.psf, twin.meta) == (exposure.psf, exposure.meta)
        assert twin.wcs.wcs.compare(exposure.wcs.wcs)


# For people


def test_repr(exposure):
    assert repr(exposure) == (
        "<Exposure Box(x0=100, y0=200, width=12, height=9): "
        "image float32, variance float32, mask int32, wcs, psf>"
    )
    assert "image float32 (lazy)" in repr(exposure.chunk(5))


def test_html(exposure):
    html = exposure._repr_html_()
    assert "<img" in html
    assert "12 × 9 pixels from (100, 200)" in html
    assert "DETECTED_NEGATIVE" in html
    assert "2 cards" in html


def test_html_of_a_lazy_exposure_reads_nothing(exposure):
    html = unread(exposure, broken=(0, 0))._repr_html_()
    assert "<img" not in html
    assert "image float32 (lazy)" in html


def test_html_escapes(exposure):
    assert "<b>x</b>" not in exposure.replace(mask_planes={"<b>x</b>": 0})._repr_html_()


@pytest.mark.parametrize("value", [np.nan, 0.0, 1e30])
def test_html_of_dull_images(value):
    assert "<img" in Exposure(np.full((3, 4), value, "f4"))._repr_html_()


def test_the_header_is_copied_not_shared():
    header = fits.Header({"OBJECT": "M 31"})
    exposure = Exposure(np.ones((2, 2)), meta=header)
    exposure.meta["OBJECT"] = "M 33"
    assert header["OBJECT"] == "M 31"
    assert isinstance(exposure.copy().meta, fits.Header)


class Cards(MutableMapping):
    """No more than a mapping must be: it has no method copy()."""

    def __init__(self):
        self.cards = {"OBJECT": "M 31"}

    def __getitem__(self, key):
        return self.cards[key]

    def __setitem__(self, key, value):
        self.cards = {**self.cards, key: value}

    def __delitem__(self, key):
        self.cards = {k: v for k, v in self.cards.items() if k != key}

    def __iter__(self):
        return iter(self.cards)

    def __len__(self):
        return len(self.cards)


def test_a_header_is_any_mapping():
    exposure = Exposure(np.ones((2, 2)), meta=Cards())
    other = exposure + 1
    other.meta["OBJECT"] = "M 33"
    assert (exposure.meta["OBJECT"], other.meta["OBJECT"]) == ("M 31", "M 33")


def test_a_wcs_of_three_axes_and_a_header_that_is_none():
    with pytest.raises(ValueError, match="wcs must have two axes, has 3"):
        Exposure(np.ones((2, 2)), wcs=WCS(naxis=3))
    with pytest.raises(TypeError, match="meta must be a header or a mapping, got list"):
        Exposure(np.ones((2, 2)), meta=[1])
