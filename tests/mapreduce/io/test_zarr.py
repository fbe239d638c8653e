"""Exposures in zarr stores: everything comes back, and others can read them."""

import os
import pickle
import shutil
import sys

import dask.array as da
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, DistortionLookupTable, Sip
from dask.base import tokenize

from mapreduce import (
    Box,
    CellPsf,
    Exposure,
    GaussianPsf,
    KernelPsf,
    MaskPlanes,
    PsfComponent,
    read_exposure,
    write_exposure,
)
from tests.support import assert_read_back, make_exposure, make_full, make_wcs

zarr = pytest.importorskip("zarr")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.zarr"


@pytest.mark.parametrize("compression", ["lz4", "zstd", None])
@pytest.mark.parametrize("chunks", [None, 16, (50, 7)])
def test_round_trip(path, chunks, compression):
    exposure = make_full()
    assert exposure.to_zarr(path, chunks=chunks, compression=compression) is None
    found = read_exposure(path)
    assert_read_back(found, exposure)
    assert dict(found.meta) == {k.upper() if len(k) < 9 else k: v for k, v in exposure.meta.items()}
    part = found.cutout(Box(4010, -290, 20, 30))
    np.testing.assert_array_equal(part.image, exposure.image[10:40, 10:30])
    np.testing.assert_array_equal(
        found.planes["mask"][3:60:4, 5:50:7], exposure.mask[3:60:4, 5:50:7]
    )


@pytest.mark.slow
def test_every_way_to_write_is_the_same(tmp_path):
    exposure = make_full()
    exposure.to_zarr(tmp_path / "a.zarr")
    exposure.write(tmp_path / "b.zarr")
    write_exposure(exposure, tmp_path / "c", format="zarr")
    for name in ("a.zarr", "b.zarr", "c"):
        assert_read_back(read_exposure(tmp_path / name), exposure)


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]
)
def test_every_dtype(path, dtype):
    exposure = make_full(image=(np.arange(4200).reshape(70, 60) % 120).astype(dtype))
    write_exposure(exposure, path, chunks=32)
    assert_read_back(read_exposure(path), exposure)
    assert zarr.open_array(path / "image", mode="r").dtype == np.dtype(dtype)


def test_planes_that_are_missing_are_not_written(path):
    exposure = Exposure(np.ones((3, 4)), mask=np.ones((3, 4), "i4"))
    exposure.to_zarr(path)
    assert sorted(os.listdir(path)) == ["image", "mask", "x", "y", "zarr.json"]
    assert_read_back(read_exposure(path), exposure)
    assert read_exposure(path).wcs is None


def test_the_header_comes_back_card_by_card(path):
    meta = fits.Header([("EXPTIME", 30.0, "[s] how long"), ("PHASE", -0.25, "turns")])
    meta["LONG"] = "words and " * 30
    meta["HIERARCH a long keyword"] = (True, "and its comment")
    meta["HISTORY"] = "one"
    meta["HISTORY"] = "two"
    meta["COMMENT"] = "it is said"
    meta["CRPIX1"] = 7.0  # not of the exposure's own WCS
    make_full(meta=meta).to_zarr(path)
    del meta["CRPIX1"]
    assert [str(card) for card in read_exposure(path).meta.cards] == [str(c) for c in meta.cards]


@pytest.mark.parametrize("value", [[1, 2], np.nan, "\N{GREEK SMALL LETTER ALPHA}"])
def test_header_cards_that_cannot_be_stored(path, value):
    with pytest.raises(ValueError, match="cannot hold the header card 'WORSE'"):
        Exposure(np.ones((3, 4)), meta={"FINE": 1, "WORSE": value}).to_zarr(path)
    assert not path.exists()


def test_psf_of_cells(path):
    models = GaussianPsf(1.0), KernelPsf(np.eye(5)), GaussianPsf(1.0)
    psf = CellPsf(PsfComponent(i, Box(20 * i, 0, 20, 70), model) for i, model in enumerate(models))
    exposure = make_full(psf=psf, origin=(0, 0))
    exposure.to_zarr(path)
    assert_read_back(read_exposure(path), exposure)


def test_wcs_with_sip_terms(path):
    wcs = make_wcs("TAN-SIP")
    a, b = np.zeros((2, 4, 4))
    a[2, 0], b[1, 2] = 1 / 3e7, -1 / 7e9
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    make_full(wcs=wcs).to_zarr(path)
    found, points = read_exposure(path).wcs, [[4000, -300], [4059, -231]]
    np.testing.assert_allclose(
        found.all_pix2world(points, 0), wcs.all_pix2world(points, 0), rtol=0, atol=1e-12
    )
    np.testing.assert_array_equal(found.sip.a, a)


def test_wcs_with_lookup_tables(path):
    wcs = make_wcs()
    table = np.linspace(-1, 1, 20, dtype="f4").reshape(4, 5)
    wcs.cpdis1 = DistortionLookupTable(table, (1, 1), (1, 1), (8, 12))
    wcs.cpdis2 = DistortionLookupTable(table * 2, (1, 1), (1, 1), (8, 12))
    exposure = make_full(wcs=wcs, origin=(0, 0))
    exposure.to_zarr(path)
    found = read_exposure(path)
    np.testing.assert_allclose(
        found.wcs.all_pix2world([[11, 22]], 0), wcs.all_pix2world([[11, 22]], 0), rtol=0, atol=1e-12
    )
    assert found.psf == exposure.psf


def test_a_copy_of_a_fits_file_has_the_same_header(tmp_path):
    make_full().write(tmp_path / "a.fits")
    opened = read_exposure(tmp_path / "a.fits")
    opened.write(tmp_path / "b.fits")
    opened.write(tmp_path / "c.zarr")
    read_exposure(tmp_path / "c.zarr").write(tmp_path / "d.fits")
    assert (tmp_path / "d.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


# As others see it


def test_layout(path):
    exposure = make_full(image=np.ones((70, 60), "f4"))
    exposure.to_zarr(path, chunks=(40, 30))
    group = zarr.open_group(path, mode="r")
    assert sorted(group.array_keys()) == ["fits", "image", "mask", "variance", "x", "y"]
    for name in ("image", "mask", "variance"):
        assert group[name].metadata.dimension_names == ("y", "x")
        assert group[name].chunks == (30, 40)
    assert group["image"].attrs["units"] == "nJy"
    assert group["variance"].attrs["units"] == "nJy2"
    assert group["mask"].attrs["mask_planes"] == dict(exposure.mask_planes)
    assert group.attrs["origin"] == [4000, -300]
    wcs = WCS(fits.Header.fromstring("".join(group.attrs["wcs"])))
    np.testing.assert_allclose(
        wcs.all_pix2world([[2, 3]], 0),
        exposure.wcs.all_pix2world([[4002, -297]], 0),
        rtol=0,
        atol=1e-12,
    )
    assert fits.Header.fromstring("".join(group.attrs["header"]))["EXPTIME"] == 30


def test_chunks_without_anything_in_them_are_written_too(path):
    Exposure(np.zeros((20, 20)), mask=np.zeros((20, 20), "i4")).to_zarr(path, chunks=10)
    for plane in ("image", "mask"):
        assert sum(len(names) for _, _, names in os.walk(path / plane / "c")) == 4


def test_a_group_of_others(path):
    group = zarr.create_group(path)
    values = np.arange(12.0).reshape(3, 4)
    group.create_array("sky", data=values)
    group.create_array("noise", data=values + 1)
    group.create_array("flags", data=(values > 5).astype("u1"))
    group.create_array("dq", data=values.astype("i4"))
    group.create_array("good", data=values > 3)
    found = read_exposure(path, image="sky", variance="noise", mask="flags").compute()
    np.testing.assert_array_equal(found.image, values)
    np.testing.assert_array_equal(found.variance, values + 1)
    np.testing.assert_array_equal(found.mask, values > 5)
    assert found.mask_planes == MaskPlanes.lsst()
    assert read_exposure(path, image="sky", mask="dq").mask_planes["BIT3"] == 3
    np.testing.assert_array_equal(read_exposure(path, image="sky", mask="good").mask, values > 3)
    with pytest.raises(ValueError, match="no array 'image'; there are .*choose with image="):
        read_exposure(path)


@pytest.mark.parametrize("version", [2, 3])
def test_a_single_array(path, version):
    values = np.arange(12, dtype=">i2").reshape(3, 4)
    zarr.create_array(path, data=values, zarr_format=version)
    found = read_exposure(path)
    np.testing.assert_array_equal(found.compute().image, values)
    assert found.image.dtype == np.dtype("i2")
    assert found.variance is found.mask is None


def test_arrays_that_are_no_planes(path):
    zarr.create_array(path, data=np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="two dimensions"):
        read_exposure(path)


# Chunks


@pytest.mark.parametrize("chunks", [0, -1, (5, 0)])
def test_chunks_must_be_above_zero(path, chunks):
    with pytest.raises(ValueError, match="chunks must be above zero"):
        make_full().to_zarr(path, chunks=chunks)


@pytest.mark.parametrize("chunks", [1.5, "8", (1, 2, 3), (4.0, 4), True])
def test_chunks_must_be_whole_numbers(path, chunks):
    with pytest.raises(TypeError, match="chunks must be a whole number or an"):
        make_full().to_zarr(path, chunks=chunks)
    assert not path.exists()


def test_options(path):
    with pytest.raises(ValueError, match='compression is "lz4", "zstd" or None, got \'gzip\''):
        make_full().to_zarr(path, compression="gzip")
    with pytest.raises(TypeError, match="no option 'tile' .* overwrite, chunks, compression"):
        make_full().write(path, tile=3)
    make_full().to_zarr(path)
    with pytest.raises(TypeError, match="no option 'ccd' .* image, variance, mask"):
        read_exposure(path, ccd="N4")


@pytest.mark.parametrize(
    ("sizes", "length", "chunk"),
    [
        ((5000,), 5000, 512),
        ((100,), 100, 100),
        ((1024, 1024, 3), 2051, 512),
        ((1000, 1000, 600), 2600, 500),
        ((300, 300, 300), 900, 300),
        ((64, 64, 64), 192, 192),
        ((300, 200, 500), 1000, 512),
        ((1021, 1021, 1021), 3063, 512),
    ],
)
def test_chunks_divide_blocks_of_one_size(path, sizes, length, chunk):
    assert sum(sizes) == length
    Exposure(da.zeros((length, 2), chunks=(sizes, 2))).to_zarr(path)
    assert zarr.open_group(path, mode="r")["image"].chunks == (chunk, 2)


# Planes


def test_sources_are_handles(path):
    exposure = make_exposure(50, 40)
    exposure.to_zarr(path, chunks=16)
    plane = read_exposure(path).planes["image"]
    assert len(pickle.dumps(plane)) < 1000
    block = pickle.loads(pickle.dumps(plane))[3:30, 4:8]
    np.testing.assert_array_equal(block, exposure.image[3:30, 4:8])
    assert plane[3:3, 4:8].shape == (0, 4)


def test_a_changed_array_is_another_and_refused(path):
    make_exposure(50, 40).to_zarr(path, chunks=16)
    before = read_exposure(path)
    assert tokenize(before) == tokenize(read_exposure(path))
    array = zarr.open_array(path / "image", mode="r+")
    array[20:25, 20:25] = 7
    after = read_exposure(path)
    assert tokenize(before.planes["image"]) != tokenize(after.planes["image"])
    assert tokenize(before.planes["mask"]) == tokenize(after.planes["mask"])
    with pytest.raises(OSError, match="image has changed since it was opened"):
        before.compute()
    assert after.compute().image[22, 22] == 7


def test_what_is_damaged_is_named(path):
    make_exposure(50, 40).to_zarr(path, chunks=16)
    opened = read_exposure(path)
    (path / "image" / "c" / "1" / "1").write_bytes(b"junk")
    with pytest.raises(OSError, match=r"image(, rows .* cannot be read| has changed)"):
        opened.compute()
    with pytest.raises(OSError, match="image, rows .* cannot be read"):
        read_exposure(path).compute()
    (path / "image" / "zarr.json").write_text("{}")
    with pytest.raises(OSError, match="not a zarr store that can be read"):
        read_exposure(path)


@pytest.mark.slow
@pytest.mark.parametrize("plane", ["image", "variance", "mask"])
@pytest.mark.parametrize("compression", ["lz4", "zstd", None])
def test_a_damaged_chunk_is_an_error_where_it_is_read(path, plane, compression):
    exposure = make_exposure(50, 40)
    exposure.to_zarr(path, chunks=16, compression=compression)
    chunk = path / plane / "c" / "1" / "2"
    whole = bytearray(chunk.read_bytes())
    flipped = whole.copy()
    flipped[len(whole) // 2] ^= 4
    for damaged in (None, flipped, whole[:-1], whole[: len(whole) // 2], whole[:3], b""):
        chunk.unlink() if damaged is None else chunk.write_bytes(damaged)
        opened = read_exposure(path)
        why = "chunk c/1/2 is missing" if damaged is None else ""
        with pytest.raises(OSError, match=f"{plane}, rows 0 to 39, .* cannot be read: .*{why}"):
            opened.compute()
        with pytest.raises(OSError, match=f"{plane}, rows 31 to 31, columns 47 t"):
            opened.cutout(Box(5 + 47, -8 + 31, 1, 1)).compute()
        for box in (Box(5, -8, 50, 16), Box(5, -8, 32, 40), Box(5 + 48, -8, 2, 40)):
            found, expected = opened.cutout(box).compute(), exposure.cutout(box)
            np.testing.assert_array_equal(getattr(found, plane), getattr(expected, plane))


@pytest.mark.parametrize("plane", ["image", "variance", "mask"])
def test_others_see_nothing_good_in_a_lost_chunk(path, plane):
    make_exposure(50, 40).to_zarr(path, chunks=16)
    (path / plane / "c" / "1" / "2").unlink()
    values = zarr.open_array(path / plane, mode="r")[16:32, 32:48]
    assert (values == -1).all() if plane == "mask" else np.isnan(values).all()


@pytest.mark.parametrize("name", ["variance", "mask", "fits"])
def test_a_lost_array(path, name):
    make_full().to_zarr(path)
    shutil.rmtree(path / name)
    with pytest.raises(OSError, match=f"a.zarr is damaged: it has lost its array '{name}'"):
        read_exposure(path)
    if name != "fits":
        assert getattr(read_exposure(path, **{name: None}), name) is None


@pytest.mark.parametrize("damage", ["lost", "flipped"])
def test_a_damaged_psf(path, damage):
    make_full().to_zarr(path)
    chunk = path / "fits" / "c" / "0"
    content = bytearray(chunk.read_bytes())
    content[100] ^= 1
    chunk.unlink() if damage == "lost" else chunk.write_bytes(content)
    with pytest.raises(OSError, match="what the group says of the exposure is damaged"):
        read_exposure(path)


def test_what_is_missing_in_stores_of_others_has_the_fill_value(path):
    group = zarr.create_group(path)
    group.create_array("image", shape=(4, 6), chunks=(2, 2), dtype="f4", fill_value=7)
    np.testing.assert_array_equal(read_exposure(path).compute().image, np.full((4, 6), 7))


def test_arrays_that_others_add(path):
    exposure = make_exposure(50, 40, variance=False)
    exposure.to_zarr(path)
    group = zarr.open_group(path, mode="r+")
    group.create_array("noise", shape=(40, 50), chunks=(10, 10), dtype="f4", fill_value=2)
    found = read_exposure(path, variance="noise").compute()
    np.testing.assert_array_equal(found.variance, np.full((40, 50), 2))
    np.testing.assert_array_equal(found.mask, exposure.mask)
    group["mask"][:] = 0
    assert not read_exposure(path).compute().mask.any()


def test_damaged_attributes(path):
    make_exposure(50, 40).to_zarr(path)
    zarr.open_group(path, mode="r+").attrs["origin"] = "here"
    with pytest.raises(OSError, match="what the group says of the exposure is damaged"):
        read_exposure(path)


def test_what_has_vanished(tmp_path, path):
    make_exposure(50, 40).to_zarr(path)
    opened = read_exposure(path)
    path.rename(tmp_path / "b.zarr")
    with pytest.raises(FileNotFoundError, match="vanished"):
        opened.compute()
    with pytest.raises(FileNotFoundError, match="no file"):
        read_exposure(path)


def test_without_zarr(path, monkeypatch):
    make_exposure(50, 40).to_zarr(path)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r"pip install 'skyfold\[zarr\]'"):
        read_exposure(path)
    with pytest.raises(ImportError, match=r"pip install 'skyfold\[zarr\]'"):
        make_exposure().to_zarr(path, overwrite=True)
    assert os.listdir(path.parent) == [path.name]
    make_exposure().write(path.with_suffix(".fits"))


@pytest.mark.parametrize("how", [{"scale_factor": 0.01}, {"dimension_names": ("x", "y")}])
def test_what_is_packed_by_xarray_is_its_to_unpack(path, how):
    group = zarr.create_group(path)
    names = how.get("dimension_names")
    image = group.create_array("image", data=np.ones((3, 4), "i2"), dimension_names=names)
    image.attrs.update({k: v for k, v in how.items() if k != "dimension_names"})
    with pytest.raises(ValueError, match=r"array 'image' has .* which is xarray's to apply"):
        read_exposure(path)


@pytest.mark.parametrize("ours", [True, False])
def test_a_frame_of_blosc_is_checked_before_it_is_decoded(path, ours):
    values = np.arange(12.0).reshape(3, 4)
    if ours:
        write_exposure(Exposure(values), path)
    else:
        zarr.create_group(path).create_array(
            "image", data=values, compressors=zarr.codecs.BloscCodec()
        )
    chunk = path / "image/c/0/0"
    data = bytearray(chunk.read_bytes())
    data[4:8] = (2**31).to_bytes(4, "little")  # what comes out of it
    exposure = read_exposure(path)
    chunk.write_bytes(data)
    os.utime(path / "image/c", ns=(1, 1))
    with pytest.raises(OSError, match="a Blosc frame of .* says that it has .* for 2147483648"):
        read_exposure(path).compute()
    assert exposure.shape == (3, 4)
