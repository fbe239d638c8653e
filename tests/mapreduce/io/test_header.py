"""Headers: cards as people write them, and a WCS as astropy makes it of the whole header."""

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from hypothesis import given, settings
from hypothesis import strategies as st

import mapreduce as mr
from mapreduce.io.cards import mended, value_of

IMAGE = np.arange(3000, dtype=">f4").reshape(50, 60)


def write_cards(path, *cards, image=IMAGE):
    """Write a FITS file with header cards as they are given."""
    ny, nx = image.shape
    standard = ["SIMPLE  = T", "BITPIX  = -32", "NAXIS   = 2", f"NAXIS1  = {nx}", f"NAXIS2  = {ny}"]
    text = "".join(card.ljust(80) for card in (*standard, *cards, "END")).encode("latin-1")
    data = image.astype(">f4").tobytes()
    path.write_bytes(
        text.ljust(-(-len(text) // 2880) * 2880) + data.ljust(-(-len(data) // 2880) * 2880, b"\0")
    )
    return path


def same(sub, expanded, full_bbox):
    return sub


# Cards

BROKEN = {
    "AIRMASS =                  nan / at the middle": ("AIRMASS", "nan"),
    "RA      = 12:34:56.7": ("RA", "12:34:56.7"),
    "GAIN    =                  1,5": ("GAIN", "1,5"),
    "FILTER  = r": ("FILTER", "r"),
    "DATE-OBS= 2020-01-01T00:00:00": ("DATE-OBS", "2020-01-01T00:00:00"),
    "OBJECT  = 'no end": ("OBJECT", "no end"),
    "TEMP    =                1E400": ("TEMP", "1E400"),
    "FLAG    = T F": ("FLAG", "T F"),
    "HIERARCH ESO TEL NAN = nan / x": ("ESO TEL NAN", "nan"),
}
UNUSUAL = {
    "gain    = 3.5": ("GAIN", 3.5),
    "GAIN    =3.5": ("GAIN", 3.5),
    "GAIN=3": ("GAIN", 3),
    "BAD KEY = 3": ("BAD KEY", 3),
    "EXPTIME = 1.5d3": ("EXPTIME", 1500.0),
    "HIERARCH ESO DET GAIN = 1.5e-12 / [s]": ("ESO DET GAIN", 1.5e-12),
    "OBSERVER= 'caf\xe9\t1'": ("OBSERVER", "caf? 1"),
}


@pytest.mark.parametrize("card", BROKEN)
def test_a_card_that_cannot_be_parsed_costs_that_card(tmp_path, card):
    path = write_cards(tmp_path / "a.fits", card, "EXPTIME =                 30.0")
    with pytest.warns(UserWarning, match=r"a\.fits, HDU 0: 1 card cannot be parsed, kept as text"):
        exposure = mr.read_exposure(path)
    keyword, value = BROKEN[card]
    assert exposure.meta[keyword] == value
    assert exposure.meta["EXPTIME"] == 30
    np.testing.assert_array_equal(exposure.compute().image, IMAGE)
    result = mr.map_reduce(exposure, same, grid=mr.GridConfig(20, border=2))
    for name in ("b.fits", "b.fits.fz", "b.zarr"):
        result.write(tmp_path / name)
        assert mr.read_exposure(tmp_path / name).meta[keyword] == value
    assert exposure.to_ccddata(unit="adu").meta[keyword] == value
    assert pickle.loads(pickle.dumps(exposure)).meta[keyword] == value


@pytest.mark.parametrize("card", UNUSUAL)
def test_a_card_of_unusual_form_is_read(tmp_path, card):
    keyword, value = UNUSUAL[card]
    exposure = mr.read_exposure(write_cards(tmp_path / "a.fits", card))
    assert exposure.meta[keyword] == value
    exposure.write(tmp_path / "b.fits")
    assert mr.read_exposure(tmp_path / "b.fits").meta[keyword] == value


def test_a_header_in_memory_may_have_such_cards_too(tmp_path):
    text = "".join(card.ljust(80) for card in BROKEN)
    header = fits.Header.fromstring(text)
    exposure = mr.Exposure(IMAGE.astype("f4"), meta=header).chunk(20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        exposure.compute()
        exposure.write(tmp_path / "b.fits")


def test_threads_that_mend_cards_leave_the_filters_of_warnings_alone():
    raw = b"AIRMASS = nan".ljust(80) + b"GAIN=3".ljust(80)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        before = [*warnings.filters]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: mended(raw, "a header"), range(200)))
        assert warnings.filters == before


def test_a_warning_lists_five_cards(tmp_path):
    cards = [f"KEY{i}    = nan" for i in range(8)]
    with pytest.warns(UserWarning, match="8 cards .*KEY4    = nan; and 3 more"):
        mr.read_exposure(write_cards(tmp_path / "a.fits", *cards))


def test_an_unquoted_name_is_a_name(tmp_path):
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(IMAGE, name="SCI")]).writeto(path)
    path.write_bytes(path.read_bytes().replace(b"'SCI     '", b"SCI       "))
    with pytest.warns(UserWarning, match="EXTNAME = SCI"):
        assert mr.read_exposure(path, image="SCI").shape == IMAGE.shape


@given(st.lists(st.binary(min_size=80, max_size=80), max_size=6))
@settings(deadline=None)
def test_whatever_is_in_a_header_can_be_read_and_written(cards):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        header = mended(b"".join(cards), "a header")
        for card in header.cards:
            assert isinstance(card.keyword, str)
            assert card.value is not None
        fits.Header.fromstring(header.tostring())
        for card in cards:
            value_of(card)


@given(
    st.sampled_from(["AIRMASS", "HIERARCH ESO TEL AIRM", "CRVAL1", "X"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
)
@settings(deadline=None)
def test_any_value_is_a_value_or_text(keyword, text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        header = mended(f"{keyword:<8}= {text}".ljust(80)[:80].encode(), "a header")
    for card in header.cards:
        card.verify("exception")
        assert isinstance(card.value, str | int | float | complex | fits.card.Undefined)


# The WCS

TAN = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.2, "CRPIX1": 20.0,
    "CRPIX2": 30.0,
}  # fmt: skip
MATRICES = {
    "CD": {"CD1_1": -1e-4, "CD1_2": 2e-6, "CD2_1": 1e-6, "CD2_2": 1e-4},
    "PC": {"PC1_1": 0.6, "PC1_2": -0.8, "PC2_1": 0.8, "PC2_2": 0.6, "CDELT1": -1e-4,
           "CDELT2": 1e-4},
    "CROTA": {"CDELT1": -1e-4, "CDELT2": 1e-4, "CROTA2": 30.0},
    "IRAF CD": {"CD001001": -1e-4, "CD001002": 1e-5, "CD002001": 1e-6, "CD002002": 1e-4},
    "IRAF PC": {"PC001001": 1.0, "PC001002": 0.1, "PC002001": 0.0, "PC002002": 1.0,
                "CDELT1": -1e-4, "CDELT2": 1e-4},
    "CD and PC": {"CD1_1": -1e-4, "CD2_2": 1e-4, "PC1_1": 1.0, "PC2_2": 1.0, "CDELT1": -2e-4,
                  "CDELT2": 2e-4},
    "texts": {"CD1_1": "-1e-4", "CD1_2": "0", "CD2_1": "0.0", "CD2_2": "1e-4"},
}  # fmt: skip
CODES = (
    "TAN SIN ARC STG ZEA ZPN AIR AZP SZP CYP CEA CAR MER SFL PAR MOL AIT COP COE COD COO BON PCO "
    "TSC CSC QSC HPX XPH GLS TPV"
).split()
PARAMETERS = {
    "ZPN": {"PV2_1": 1.0, "PV2_3": 300.0},
    "TPV": {"PV1_0": 0.0, "PV1_1": 1.001, "PV1_2": 2e-3, "PV1_4": 0.1, "PV2_1": 1.0, "PV2_5": 0.3},
    **dict.fromkeys(("COP", "COE", "COD", "COO"), {"PV2_1": 45.0, "PV2_2": 5.0}),
    "BON": {"PV2_1": 45.0},
    "AIR": {"PV2_1": 45.0},
}


def iraf(axis, text):
    return {f"WAT{axis}_{i // 68 + 1:03d}": text[i : i + 68] for i in range(0, len(text), 68)}


def tnx(code, more=""):
    surface = '"3. 3. 3. 2. -0.05 0.05 -0.05 0.05 {} "'
    lng = surface.format("1.5E-4 2.5E-3 0.11 1.2E-3 -2.1E-2 0.3")
    lat = surface.format("-2.5E-4 1.5E-3 0.21 -1.2E-3 1.1E-2 0.2")
    ends = (("axtype=ra", f"lngcor = {lng}"), ("axtype=dec", f"latcor = {lat}"))
    cards = {"WCSDIM": 2, "WAT0_001": "system=image"}
    for axis, (start, end) in enumerate(ends, 1):
        cards |= iraf(axis, f"wtype={code} {start} {more}{end}")
    names = {"CTYPE1": f"RA---{code.upper()}", "CTYPE2": f"DEC--{code.upper()}"}
    return TAN | MATRICES["CD"] | names | cards


def dss(label):
    plate = {
        "PLTRAH": 2, "PLTRAM": 30, "PLTRAS": 10.5, "PLTDECSN": "+", "PLTDECD": 10, "PLTDECM": 20,
        "PLTDECS": 30.0, "EQUINOX": 2000.0, "CNPIX1": 5000, "CNPIX2": 6000, "PLTSCALE": 67.2,
        "XPIXELSZ": 25.28445, "YPIXELSZ": 25.28445, "PPO1": 0.0, "PPO2": 0.0, "PPO3": 177500.0,
        "PPO4": 0.0, "PPO5": 0.0, "PPO6": 177500.0,
    }  # fmt: skip
    x = [67.2, 0.1, -200.0, 1e-4, 2e-4, 1e-4, 0.0, 1e-6, 2e-6, 1e-6, 2e-6, 0.0, 0.0]
    y = [67.2, -0.1, 150.0, *x[3:]]
    for i in range(20):
        plate |= {f"AMDX{i + 1}": [*x, *[0.0] * 7][i], f"AMDY{i + 1}": [*y, *[0.0] * 7][i]}
    return label | plate


HEADERS = {
    **{f"TAN, {name}": TAN | matrix for name, matrix in MATRICES.items()},
    **{
        code: TAN | MATRICES["CD"] | PARAMETERS.get(code, {})
        | {"CTYPE1": f"RA---{code}", "CTYPE2": f"DEC--{code}"}
        for code in CODES
    },
    "TAN with PV": TAN | MATRICES["CD"] | PARAMETERS["TPV"],
    "SIP": TAN | MATRICES["CD"] | {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP",
        "A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-5, "B_0_2": 2e-5},
    "NCP": TAN | MATRICES["CD"] | {"CTYPE1": "RA---NCP", "CTYPE2": "DEC--NCP", "CRVAL2": 60.0},
    "TNX": tnx("tnx"),
    "ZPX": tnx("zpx", "projp1=1. projp3=337.74 "),
    "DSS": dss({"PLATEID": "01A2"}),
    "DSS without a label": dss({}),
    "FK4": TAN | MATRICES["CD"] | {"EQUINOX": 1950.0, "RADECSYS": "FK4"},
    "EPOCH": TAN | MATRICES["CD"] | {"EPOCH": 1975.0},
    "galactic": TAN | MATRICES["CD"] | {"CTYPE1": "GLON-CAR", "CTYPE2": "GLAT-CAR"},
    "declination first": TAN | MATRICES["CD"] | {"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN",
        "CRVAL1": 2.2, "CRVAL2": 150.0},
    "a third axis": TAN | MATRICES["CD"] | {"WCSAXES": 3, "CTYPE3": "FREQ", "CRVAL3": 1e9,
        "CDELT3": 1.0, "CRPIX3": 1.0},
    "wavelengths": {"CTYPE1": "WAVE", "CUNIT1": "Angstrom", "CRVAL1": 5000.0, "CRPIX1": 1.0,
        "CDELT1": 1.5, "CTYPE2": "LINEAR", "CRVAL2": 0.0, "CRPIX2": 10.0, "CDELT2": 0.2},
    "a frame and an equinox": TAN | MATRICES["CD"] | {"RADESYS": "ICRS", "EQUINOX": 2000.0},
}  # fmt: skip
X, Y = np.array([[0.0, 7.5, 59.0, 30.0], [0.0, 3.0, 49.0, 45.0]])


def on_sky(wcs, dx=0, dy=0):
    return np.array(wcs.all_pix2world(X + dx, Y + dy, 0))


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADERS)
def test_the_wcs_is_what_astropy_makes_of_the_header(tmp_path, name):
    """As it is read, cut out, sent to a worker, and written again."""
    cards = HEADERS[name]
    for pack, file in ((fits.ImageHDU, "a.fits"), (fits.CompImageHDU, "a.fits.fz")):
        hdu = pack(IMAGE.astype("f4"), fits.Header(cards), name="SCI")
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / file)
    numbers = {
        k: float(v) if k.startswith("CD1_") or k.startswith("CD2_") else v for k, v in cards.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        right = on_sky(
            WCS(fits.Header({"NAXIS": 2, "NAXIS1": 60, "NAXIS2": 50} | numbers), naxis=2)
        )
    assert np.isfinite(right).all()
    for file in ("a.fits", "a.fits.fz"):
        exposure = mr.read_exposure(tmp_path / file)
        np.testing.assert_allclose(on_sky(exposure.wcs), right, rtol=0, atol=1e-11)
    part = exposure.cutout(mr.Box(5, 7, 20, 30))
    np.testing.assert_allclose(on_sky(pickle.loads(pickle.dumps(part)).wcs), right, atol=1e-10)
    result = mr.map_reduce(part, same, grid=mr.GridConfig(20, border=2)).compute()
    for file in ("b.fits", "b.fits.fz", "b.zarr"):
        result.write(tmp_path / file)
        found = mr.read_exposure(tmp_path / file)
        assert found.origin == (5, 7)
        np.testing.assert_allclose(on_sky(found.wcs), right, rtol=0, atol=1e-10)
    array = WCS(fits.getheader(tmp_path / "b.fits", "IMAGE"))
    np.testing.assert_allclose(on_sky(array, -5, -7), right, rtol=0, atol=1e-10)
    for card in {"EQUINOX", "RADESYS"} & cards.keys():
        headers = [fits.getheader(tmp_path / "b.fits", i) for i in (0, "IMAGE")]
        assert {header[card] for header in headers if card in header} == {cards[card]}


UNUSABLE = {
    "no such projection": {"CTYPE1": "RA---XYZ"},
    "a matrix without an inverse": {"CD1_1": 0.0, "CD1_2": 0.0},
    "a number that is none": {"CRVAL1": "nan"},
    "a number that is a truth": {"CRPIX1": True},
    "more axes than there can be": {"WCSAXES": 2147483647},
    "a polynomial of a million terms": {"A_ORDER": 30000, "CTYPE1": "RA---TAN-SIP"},
    "a sky of one axis": {"CTYPE2": "FREQ"},
    "lookup tables that are not there": {"CPDIS1": "Lookup", "DP1.EXTVER": 3.0},
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_wcs_that_cannot_be_used_is_left_out(tmp_path, name):
    header = fits.Header(TAN | MATRICES["CD"] | UNUSABLE[name])
    fits.PrimaryHDU(IMAGE.astype("f4"), header).writeto(tmp_path / "a.fits")
    with pytest.warns(
        UserWarning, match=r"a\.fits, HDU 0: the WCS cannot be used, and is left out"
    ):
        exposure = mr.read_exposure(tmp_path / "a.fits")
    assert exposure.wcs is None
    np.testing.assert_array_equal(exposure.compute().image, IMAGE)
    exposure.write(tmp_path / "b.fits")
    assert mr.read_exposure(tmp_path / "b.fits").meta["CRVAL2"] == 2.2
    assert mr.read_exposure(tmp_path / "a.fits", wcs=None).wcs is None


@pytest.mark.parametrize("format", ["fits", "zarr"])
def test_a_wcs_may_be_given(tmp_path, format):
    exposure = mr.Exposure(IMAGE.astype("f4"), origin=(100, 200), wcs=WCS(fits.Header(TAN)))
    path = tmp_path / f"a.{format}"
    exposure.write(path)
    given_one = WCS(fits.Header(TAN | {"CRVAL1": 10.0}))
    assert mr.read_exposure(path, wcs=given_one).wcs.wcs.crval[0] == 10
    assert mr.read_exposure(path, wcs=None).wcs is None
    with pytest.raises(ValueError, match="wcs must have two axes, has 3"):
        mr.read_exposure(path, wcs=WCS(naxis=3))
    with pytest.raises(TypeError, match='wcs is "auto", None, or an astropy'):
        mr.read_exposure(path, wcs="header")


def test_meta_keeps_what_no_part_stands_for(tmp_path):
    cards = {"CTYPE1P": "LINEAR", "CRPIX1P": 5.0, "LTV1": 3.0, "OBJECT": "M1", "EQUINOX": 2000.0}
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(IMAGE.astype("f4"), fits.Header(cards)).writeto(path)
    exposure = mr.read_exposure(path)
    assert dict(exposure.meta) == cards
    exposure.write(tmp_path / "b.fits")
    assert dict(mr.read_exposure(tmp_path / "b.fits").meta) == cards


def test_meta_keeps_the_axes_that_the_wcs_does_not_have(tmp_path):
    cards = {"CTYPE3": "FREQ", "CRVAL3": 1.4e9, "CDELT3": 1e6, "CRPIX3": 1.0, "DQ1": "a text"}
    header = fits.Header(TAN | MATRICES["CD"] | cards)
    fits.PrimaryHDU(IMAGE.astype("f4")[None], header).writeto(tmp_path / "a.fits")
    exposure = mr.read_exposure(tmp_path / "a.fits")
    assert exposure.wcs is not None
    assert dict(exposure.meta) == cards
    np.testing.assert_array_equal(exposure.compute().image, IMAGE)


def test_a_linear_wcs_needs_no_types(tmp_path):
    cards = {"CRVAL1": 5.0, "CRPIX1": 1.0, "CDELT1": 2.0, "CRVAL2": 5.0, "CRPIX2": 1.0}
    fits.PrimaryHDU(IMAGE.astype("f4"), fits.Header(cards)).writeto(tmp_path / "a.fits")
    mr.read_exposure(tmp_path / "a.fits").cutout(mr.Box(10, 0, 20, 20)).write(tmp_path / "b.fits")
    found = mr.read_exposure(tmp_path / "b.fits").wcs
    np.testing.assert_allclose(found.all_pix2world([[10, 0]], 0), [[25, 5]])


@pytest.mark.parametrize("cards", [{"LTV1": "abc"}, {"LTV1": 1e300}])
def test_an_origin_that_is_none(tmp_path, cards):
    mr.Exposure(IMAGE.astype("f4")).write(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", mode="update") as hdus:
        del hdus["IMAGE"].header["CRPIX1A"]
        hdus["IMAGE"].header.update(cards)
    with pytest.warns(UserWarning, match=r"HDU 1 \(IMAGE\): the origin .* taken as \(0, 0\)"):
        assert mr.read_exposure(tmp_path / "a.fits").origin == (0, 0)


@pytest.mark.parametrize("name", ["a.fits", "a.fits.fz", "a.zarr"])
def test_cards_of_tables_do_not_stop_an_image(name, tmp_path):
    """Astropy would count columns by them."""
    exposure = mr.Exposure(
        IMAGE.astype("f4"), meta={"TFIELDS": "abc", "THEAP": 1.5, "OBJECT": "M 1"}
    )
    exposure.write(tmp_path / name)
    found = mr.read_exposure(tmp_path / name)
    assert found.meta["OBJECT"] == "M 1"
    np.testing.assert_array_equal(found.compute().image, IMAGE)
