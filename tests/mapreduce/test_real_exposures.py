"""The main job on real exposures of every instrument that there is."""

import numpy as np
import pytest

import mapreduce as mr
from mapreduce.mappers.background import subtract_background
from mapreduce.mappers.filters import median_filter

NIRCAM = "nircam_pair/jw01324001001-01324-o001_t001_nircam_clear-f200w_i2d_stamp"
EXPOSURES = {
    "DECam": ("decam_cp/single/c4d_170316_062107_ooi_z_ls9.N2.fits", {}),
    "DECam, saturated": ("decam_cp/pairs/c4d_181215_045000_ooi_z_ls9.S9.fits", {}),
    "90Prime": ("mosaic3_90prime/ksb_160203_115029_ooi_r_v1-ccd2.fits", {}),
    "NIRCam": (f"{NIRCAM}.fits", {"error": f"{NIRCAM}.noise.fits"}),
    "DECam, resampled": ("decam_stack/DEC-OBS04a.mini.fits", {}),
    "HSC": ("hsc/HSC-0908120-056-small.fits", {}),
    "MegaCam": ("megacam_calexp/calexp-849375-12.fits.fz", {}),
}


@pytest.fixture(params=EXPOSURES)
def exposure(request, shared):
    name, options = EXPOSURES[request.param]
    folder = shared / "data/exposures"
    options = {key: folder / path for key, path in options.items()}
    return mr.read_exposure(folder / name, **options)


@pytest.mark.slow
@pytest.mark.parametrize("mapper", [subtract_background, median_filter])
def test_map_write_and_open_again(exposure, mapper, tmp_path):
    grid = mr.GridConfig(128, border=16)
    done = mr.map_reduce(exposure, mapper, grid=grid, on_error="mask").compute()
    assert not done.report.failures
    done.write(tmp_path / "out.fits")
    again = mr.read_exposure(tmp_path / "out.fits")
    assert again.bbox == exposure.bbox
    assert again.mask_planes == done.mask_planes
    assert exposure.mask_planes.items() <= done.mask_planes.items()
    read = again.compute()
    for name in exposure.planes:
        np.testing.assert_array_equal(getattr(read, name), getattr(done, name))
    x, y = np.array([exposure.bbox.x0, exposure.bbox.x1]), np.array([exposure.bbox.y0] * 2)
    np.testing.assert_allclose(
        again.wcs.all_pix2world(x, y, 0), exposure.wcs.all_pix2world(x, y, 0), rtol=0, atol=1e-9
    )


def test_the_background_is_gone(shared):
    name, _ = EXPOSURES["DECam"]
    exposure = mr.read_exposure(shared / "data/exposures" / name)
    grid = mr.GridConfig(64, border=32)
    done = mr.map_reduce(exposure, subtract_background, grid=grid).compute()
    good = done.mask == 0
    before, noise = exposure.compute().image, np.sqrt(np.median(done.variance[good]))
    assert np.median(before[good]) > 50 * noise
    assert abs(np.median(done.image[good])) < 0.1 * noise
    assert not np.isnan(done.image).any()
