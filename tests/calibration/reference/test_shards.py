"""Catalogs of shards, as LSST has them: only those near the stars are read, and nothing is lost."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from calibration.reference.catalog import ReferenceCatalog, ReferenceWarning
from calibration.reference.measure import reference_offsets
from calibration.reference.shards import _caps, open_shards
from calibration.sky.htm import trixel_corners
from calibration.sky.matching import angle, unit_vectors
from tests.calibration.reference_cases import CONFIG, STARS, TABLE, assert_close, compute, make_run
from tests.calibration.sky.test_htm import inside, trixel_of

COUNT = len(TABLE["ra"])
FAR = {name: np.concatenate([values, values[:9]]) for name, values in TABLE.items()}
FAR["ra"][COUNT:] = (FAR["ra"][COUNT:] + 170) % 360


@pytest.fixture(scope="module")
def trixels():
    """Return the trixels of depth 7 of the catalog: many of its stars are in the same few."""
    vectors = unit_vectors(FAR["ra"], FAR["dec"])
    ids = np.zeros(len(vectors), int)
    while (left := np.flatnonzero(ids == 0)).size:
        id = trixel_of(vectors[left[:1]], 7)[0]
        ids[left[inside(vectors[left], trixel_corners([id]))[:, 0]]] = id
    return ids


def write_shards(folder, trixels, name="{}.fits", factor=1.0, unit="nJy", version=1):
    """Write a catalog as afw does, with what lies beside the shards."""
    folder.mkdir()
    (folder / "config.py").write_text("config.dataset_config.format_version=1\n")
    (folder / "README.txt").write_text("a reference catalog")
    for id in (*np.unique(trixels), None):
        rows = trixels == id if id is not None else np.zeros(len(trixels), bool)
        table = Table({name: values[rows] for name, values in FAR.items()})
        for own, theirs in (("ra", "coord_ra"), ("dec", "coord_dec")):
            table[own] = np.radians(table[own])
            table.rename_column(own, theirs)
        for column in table.colnames[2:]:
            table[column] *= factor
        hdu = fits.BinTableHDU(table)
        hdu.header["AFW_TYPE"] = "SIMPLE"
        if version is not None:
            hdu.header["HIERARCH REFCAT_FORMAT_VERSION"] = version
        units = ["rad", "rad", *[unit] * (len(table.colnames) - 2)]
        hdu.header.update({f"TUNIT{i}": text for i, text in enumerate(units, 1) if text})
        target = "master_schema.fits" if id is None else name.format(id)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(folder / target)
    return folder


@pytest.mark.parametrize(
    ("name", "up"),
    [
        ("{}.fits", 2),
        pytest.param("gaia_dr3_20230707_{}_refcats_dm_39298.fits", 0, marks=pytest.mark.slow),
    ],
)
def test_shards_near_the_stars_are_read_alone(name, up, trixels, tmp_path):
    trixels = trixels >> 2 * up  # which are of a lower depth
    folder = write_shards(tmp_path / "gaia", trixels, name)
    reference = ReferenceCatalog.open(folder)
    assert repr(reference) == (
        f"<ReferenceCatalog: gaia, {len(np.unique(trixels))} files, bands g, r>"
    )
    lazy = reference_offsets(make_run(STARS), CONFIG, reference)
    near = [name.format(id) for id in np.unique(trixels[:COUNT])]
    for path in folder.glob("*[0-9].fits"):
        if path.name not in near:
            path.unlink()
    assert_close(lazy.compute(scheduler="sync"), compute())
    assert_close(compute(table=sorted(folder.glob("*[0-9]*.fits"))), compute())


def test_shards_far_from_the_stars_of_a_run_are_not_opened(trixels, tmp_path):
    trixels = trixels >> 4
    folder = write_shards(tmp_path / "refcat", trixels)
    for id in set(trixels[COUNT:].tolist()) - set(trixels[:COUNT].tolist()):
        (folder / f"{id}.fits").write_bytes(b"damaged")
    run = make_run(STARS, reference_catalog=folder)
    assert_close(reference_offsets(run, CONFIG).compute(scheduler="sync"), compute())


def test_names_that_say_another_place_are_not_believed(trixels, tmp_path):
    folder = write_shards(tmp_path / "wrong", (trixels >> 4) ^ 5)
    with pytest.warns(
        ReferenceWarning, match="wrong: the names of the files are not of the places"
    ):
        reference = ReferenceCatalog.open(folder)
    assert not reference.partitioned
    assert_close(compute(table=reference), compute())


def test_other_names_are_read_as_a_whole(trixels, tmp_path):
    folder = write_shards(tmp_path / "any", trixels % 3, "part-{}.fits")
    assert not ReferenceCatalog.open(folder).partitioned
    assert_close(compute(table=folder), compute())


def test_fluxes_of_the_first_format_are_in_jansky(trixels, tmp_path):
    for version, factor in ((None, 1e-9), (0, 1e-9), (1, 1.0)):
        place = {"factor": factor, "unit": "", "version": version}
        folder = write_shards(tmp_path / f"{version}", np.full(len(trixels), 131072), **place)
        found = compute(table=folder / "131072.fits")
        assert found.offsets == pytest.approx(compute().offsets, abs=1e-9)


def test_caps_hold_their_trixels():
    """Whatever the depth: a star in a shard is never missed."""
    rng = np.random.default_rng(1)
    for depth, id in ((0, 9), (2, 200), (7, 131072), (7, 262143), (9, 8 * 4**9 + 12345)):
        corners = trixel_corners([id])
        weights = rng.dirichlet((0.3, 0.3, 0.3), 200)
        vectors = weights @ corners[0]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        caps = _caps([f"{id}.fits"])
        apart = angle(np.linalg.norm(vectors - caps.vectors, axis=1))
        assert (apart <= caps.radii).all(), depth
        assert caps.near(vectors[:1], 0.0).all()
        assert not caps.near(-vectors[:1], 1.0).any()


def test_an_empty_directory_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no table in"):
        open_shards(tmp_path)
