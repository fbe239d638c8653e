"""Masks of files: every bit of the file's keeps its meaning, and no bit of ours is one of those."""

import numpy as np
import pytest
import zarr
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mapreduce as mr
from mapreduce import MaskPlanes
from mapreduce.io.masks import MaskBit, read_mask, used_bits

OURS = ("BAD", "NO_DATA", "INVALID_MAPREDUCE")
DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"]
IMAGE = np.ones((6, 8), "f4")


def same(sub, expanded, full_bbox):
    return sub


def bits_of(value, width):
    return [bit for bit in range(width) if int(value) >> bit & 1]


def flags_with(bits, dtype):
    """Return a mask in which pixel (0, i) has only the i-th of these bits."""
    width = 8 * np.dtype(dtype).itemsize
    flags = np.zeros(IMAGE.shape, f"u{width // 8}")
    flags.flat[: len(bits)] = [1 << bit for bit in bits]
    return flags.view(dtype)


def write_fits(path, flags, names=(), pack=fits.ImageHDU, noise="ERR"):
    header = fits.Header()
    for name, bit in dict(names).items():
        header[f"HIERARCH MP_{name}"] = bit
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(IMAGE, name="SCI"), fits.ImageHDU(IMAGE, name=noise)]
    fits.HDUList([*hdus, pack(flags, header, name="DQ")]).writeto(path)
    return path


def write_zarr(path, flags, names=()):
    group = zarr.create_group(path)
    group.create_array("image", data=IMAGE)
    mask = group.create_array("mask", data=flags)
    if names:
        mask.attrs["mask_planes"] = dict(names)
    return path


def write_as(format, path, flags, names=()):
    if format == "zarr":
        return write_zarr(path / "a.zarr", flags, names)
    pack = fits.CompImageHDU if format == "fits.fz" else fits.ImageHDU
    return write_fits(path / f"a.{format}", flags, names, pack)


def planes_set(exposure, y, x):
    return {name for name, bit in exposure.mask_planes.items() if exposure.mask[y, x] >> bit & 1}


def mapped(exposure):
    return mr.map_reduce(exposure, same, grid=mr.GridConfig(4, border=1)).compute()


@pytest.mark.parametrize("format", ["fits", "fits.fz", "zarr"])
@pytest.mark.parametrize("dtype", DTYPES[2:])
def test_bits_without_names_are_called_by_their_numbers(tmp_path, dtype, format):
    width = 8 * np.dtype(dtype).itemsize
    if format == "fits.fz" and width == 64:
        pytest.skip("FITS has no compressed images of 64-bit integers")
    bits = [0, 3, 7, width // 2, width - 2, width - 1]
    result = mapped(mr.read_exposure(write_as(format, tmp_path, flags_with(bits, dtype))))
    assert {name for name in result.mask_planes if name not in OURS} == {f"BIT{b}" for b in bits}
    for i, bit in enumerate(bits):
        assert planes_set(result, 0, i) == {f"BIT{bit}"}
    assert not result.mask[1:].any()


@pytest.mark.parametrize("format", ["fits", "fits.fz", "zarr"])
@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_a_mask_of_bytes_without_names_is_a_map_of_bad_pixels(tmp_path, dtype, format):
    result = mapped(mr.read_exposure(write_as(format, tmp_path, flags_with([0, 5, 7], dtype))))
    assert [planes_set(result, 0, i) for i in range(4)] == [{"BAD"}, {"BAD"}, {"BAD"}, set()]


@pytest.mark.parametrize("way", ["header", "mask_planes", "keep_planes"])
@pytest.mark.parametrize("format", ["fits", "fits.fz", "zarr"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_with_names_are_taken_by_name(tmp_path, dtype, format, way):
    width = 8 * np.dtype(dtype).itemsize
    if format == "fits.fz" and width == 64:
        pytest.skip("FITS has no compressed images of 64-bit integers")
    named = {"LOW": 1, "TOP": width - 1}
    flags = flags_with([*range(width)][:48], dtype)
    flags.flat[47] = flags_with([width - 1], dtype).flat[0]
    in_file = {} if way == "mask_planes" else named
    options = {"mask_planes": {"mask_planes": named}, "keep_planes": {"keep_planes": [*named]}}
    path = write_as(format, tmp_path, flags, in_file)
    result = mapped(mr.read_exposure(path, **options.get(way, {})))
    assert {name for name in result.mask_planes if name not in OURS} == {*named}
    assert planes_set(result, 0, 1) == {"LOW"}
    assert planes_set(result, 5, 7) == {"TOP"}
    others = [divmod(i, 8) for i in range(47) if i not in (1, width - 1)]
    assert all(planes_set(result, *pixel) == set() for pixel in others)


@given(st.data())
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_a_pixel_is_flagged_for_a_documented_reason_only(data):
    """Whatever a mask has set or named, and whatever is added to it."""
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES[2:])))
    width = 8 * dtype.itemsize
    values = data.draw(st.lists(st.integers(0, 2**width - 1), min_size=48, max_size=48))
    flags = np.array(values, f"u{dtype.itemsize}").reshape(6, 8).view(dtype)
    bits = data.draw(st.sets(st.integers(0, width - 1), max_size=20))
    names = {f"P{bit}": MaskBit(0, bit) for bit in bits}
    add = data.draw(st.sets(st.sampled_from(["BAD", "NO_DATA", "P3"])))
    keep = data.draw(st.none() | st.sets(st.sampled_from(sorted(names)))) if names else None
    mask, planes = read_mask([flags], names, "a mask", keep_planes=keep, add=sorted(add))
    exposure = mr.Exposure(IMAGE, mask=mask[:, :], mask_planes=planes)
    exposure = exposure.with_mask_planes(*OURS)
    wanted = names if keep is None else keep
    assert exposure.mask_planes.keys() == {*wanted, *add, *OURS}
    bits_in_file = flags.view(f"u{dtype.itemsize}")
    for name, bit in exposure.mask_planes.items():
        expected = bits_in_file >> names[name].bit & 1 if name in wanted else np.zeros((6, 8))
        np.testing.assert_array_equal(exposure.mask >> bit & 1, expected)


@pytest.mark.parametrize("lazy", [False, True])
def test_planes_that_a_run_adds_share_no_bit_with_what_has_no_name(lazy):
    flags = np.array([[0, 1, 2, 4, 8, 16, 2**30, -(2**31)]] * 6, np.int32)
    exposure = mr.Exposure(IMAGE, mask=flags, mask_planes={"FIRST": 0})
    result = mapped(exposure.chunk(3) if lazy else exposure)
    assert planes_set(result, 0, 1) == {"FIRST"}
    assert all(planes_set(result, 0, x) == set() for x in (0, *range(2, 8)))
    if not lazy:
        np.testing.assert_array_equal(result.mask, flags)


def test_more_bits_than_there_is_room_for(tmp_path):
    flags = np.full(IMAGE.shape, -1, np.int32)
    path = write_fits(tmp_path / "a.fits", flags)
    with pytest.warns(
        UserWarning, match="int32 holds 28 mask planes beside ours; left out are BIT28"
    ):
        exposure = mr.read_exposure(path)
    assert len(mapped(exposure).mask_planes) == 31
    kept = mr.read_exposure(path, keep_planes=["BIT31", "BIT2"])
    assert planes_set(mapped(kept), 0, 0) == {"BIT31", "BIT2"}
    with pytest.raises(KeyError, match="no mask plane 'BIT32'; there are BIT0, "):
        mr.read_exposure(path, keep_planes=["BIT32"])
    with pytest.raises(TypeError, match="keep_planes is a list of names, got 'BIT3'"):
        mr.read_exposure(path, keep_planes="BIT3")
    with pytest.raises(TypeError, match="mask_planes is a mapping of names to bits"):
        mr.read_exposure(path, mask_planes={"X": "1"})
    with pytest.raises(ValueError, match="mask plane X is bit 32, of 32 from 0"):
        mr.read_exposure(path, mask_planes={"X": 32})


@pytest.mark.parametrize("compression", [None, "GZIP_2", "RICE_1"])
@pytest.mark.parametrize("dtype", ["i2", "i4", "u2", "u4"])
def test_a_blank_value_is_a_value_like_others(tmp_path, dtype, compression):
    flags = flags_with([0, 4], dtype)
    hdu = fits.ImageHDU(flags, name="DQ")
    if compression:
        hdu = fits.CompImageHDU(flags, name="DQ", compression_type=compression)
    hdu.header["BLANK"] = 1
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(IMAGE, name="SCI"), hdu]).writeto(path)
    exposure = mr.read_exposure(path, mask_planes={"A": 0, "B": 4}).compute()
    np.testing.assert_array_equal(exposure.mask, flags.astype("i4"))


def test_names_without_a_bit(tmp_path):
    path = write_fits(tmp_path / "a.fits", flags_with([0, 1], "i4"), {"FINE": 1, "NEGATIVE": -3})
    with pytest.warns(UserWarning, match="mask plane NEGATIVE has no bit, but -3"):
        exposure = mr.read_exposure(path)
    assert exposure.mask_planes["FINE"] == 1
    assert "NEGATIVE" not in exposure.mask_planes


def test_a_name_of_a_bit_that_the_mask_does_not_have(tmp_path):
    path = write_fits(tmp_path / "a.fits", flags_with([0, 1], "i2"), {"FINE": 1, "HIGH": 20})
    with pytest.warns(UserWarning, match="mask plane HIGH is bit 20, of 16 from 0; it is left out"):
        assert mr.read_exposure(path).mask_planes["FINE"] == 1


def test_two_names_of_one_bit_are_two_planes(tmp_path):
    path = write_fits(tmp_path / "a.fits", flags_with([3], "i4"), {"ONE": 3, "OTHER": 3})
    assert planes_set(mr.read_exposure(path).compute(), 0, 0) == {"ONE", "OTHER"}


def test_the_mask_is_read_through_only_where_nothing_names_its_bits(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("mapreduce.io.masks.used_bits", lambda mask: seen.append(mask) or (0,))
    named = write_fits(tmp_path / "a.fits", flags_with([0], "i4"), {"A": 0})
    unnamed = write_fits(tmp_path / "b.fits", flags_with([0], "i4"))
    mr.read_exposure(named)
    mr.read_exposure(unnamed, mask_planes={"A": 0})
    mr.read_exposure(unnamed, keep_planes=["BIT3"])
    mr.read_exposure(unnamed, mask=None)
    assert not seen
    mr.read_exposure(unnamed)
    assert len(seen) == 1


def test_bits_in_use_of_a_mask_that_cannot_be_read():
    class Broken:
        shape, dtype = (4, 4), np.dtype("i2")

        def __getitem__(self, slices):
            raise OSError("damaged")

    with pytest.warns(UserWarning, match="all bits of a mask are taken for used: damaged"):
        assert used_bits(Broken()) == tuple(range(16))


def test_masks_of_decam_keep_planes(tmp_path):
    primary = fits.PrimaryHDU(header=fits.Header({"INSTRUME": "DECam", "PLVER": "V4.8"}))
    for kind, values in {"i": IMAGE, "w": IMAGE, "d": (IMAGE * 5).astype("i4")}.items():
        hdu = fits.ImageHDU(values, name="N2")
        fits.HDUList([primary, hdu]).writeto(tmp_path / f"c4d_oo{kind}_z.fits")
    exposure = mr.read_exposure(tmp_path / "c4d_ooi_z.fits", keep_planes=["CR"])
    assert exposure.mask_planes == MaskPlanes({"CR": 3, "BAD": 0})
    assert planes_set(exposure.compute(), 2, 2) == {"CR"}


@pytest.mark.parametrize("pack", [fits.ImageHDU, fits.CompImageHDU])
def test_data_quality_of_decam_with_blank(tmp_path, pack):
    primary = fits.PrimaryHDU(header=fits.Header({"INSTRUME": "DECam", "PLVER": "V4.8"}))
    for kind, values in {"i": IMAGE, "w": IMAGE, "d": (IMAGE * 5).astype("i4")}.items():
        hdu = pack(values, name="N2")
        if kind == "d":
            hdu.header["BLANK"] = 5
        fits.HDUList([primary, hdu]).writeto(tmp_path / f"c4d_oo{kind}_z.fits")
    exposure = mr.read_exposure(tmp_path / "c4d_ooi_z.fits", ccd="N2").compute()
    assert planes_set(exposure, 2, 2) == {"CR"}


@pytest.mark.parametrize("dtype", ["u1", "i1"])
def test_bytes_of_plio(tmp_path, dtype):
    flags = np.eye(6, 8).astype(dtype)
    hdu = fits.CompImageHDU(flags, name="DQ", compression_type="PLIO_1")
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(IMAGE, name="SCI"), hdu]).writeto(path)
    np.testing.assert_array_equal(mr.read_exposure(path).mask.compute() != 0, np.eye(6, 8))
    np.testing.assert_array_equal(mr.read_exposure(path, image="DQ", mask=None).image, flags)


def test_unsigned_plio_of_cfitsio(tmp_path):
    fitsio = pytest.importorskip("fitsio")
    values = np.array([[0, 1, 5, 2**15 - 1, 2**15, 2**16 - 1]] * 4, np.uint16)
    path = str(tmp_path / "a.fits")
    fitsio.write(path, values, compress="PLIO")
    np.testing.assert_array_equal(mr.read_exposure(path).image, values)
    exposure = mr.read_exposure(path, mask=1, mask_planes={"TOP": 15}).compute()
    np.testing.assert_array_equal(exposure.mask >> exposure.mask_planes["TOP"] & 1, values >> 15)
