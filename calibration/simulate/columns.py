"""The columns of a simulated run's tables: unit, as FITS spells it, and description of each.

Those of `calibration.run.columns` and more, by LSST's names. A hPa is a mbar, which FITS has
not.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "ATMOSPHERE",
    "LOOKUP",
    "OBSERVATIONS",
    "STARS",
    "TRUE_ATMOSPHERE",
    "TRUE_OFFSETS",
    "TRUE_STARS",
    "TRUE_ZEROPOINTS",
    "VISITS",
    "ZEROPOINTS",
    "passband_columns",
    "reference_columns",
]

Columns = dict[str, tuple[str, str]]

_VISIT: Columns = {"visit": ("", "visit number")}
_DETECTOR: Columns = {"detector": ("", "detector id")}
_SKY: Columns = {"ra": ("deg", "right ascension"), "dec": ("deg", "declination")}
_WEATHER: Columns = {
    "pmb": ("hPa", "barometric pressure"),
    "pwv": ("mm", "precipitable water vapour"),
    "tau": ("", "aerosol optical depth at lambdaNorm"),
    "alpha": ("", "aerosol exponent"),
    "o3": ("", "ozone (Dobson)"),
    "secZenith": ("", "secant of the zenith angle"),
}

VISITS: Columns = {
    **_VISIT,
    "physicalFilter": ("", "physical filter"),
    "telra": ("deg", "pointing, right ascension"),
    "teldec": ("deg", "pointing, declination"),
    "telha": ("deg", "pointing, hour angle"),
    "telrot": ("deg", "position angle of focal-plane +y"),
    "mjd": ("d", "time"),
    "exptime": ("s", "exposure time"),
    "pmb": ("hPa", "barometric pressure"),
    "psfSigma": ("pix", "PSF sigma"),
    "psfFwhm": ("arcsec", "PSF FWHM"),
    "psfFwhmDetector": ("arcsec", "PSF FWHM per detector"),
    "deltaAper": ("mag", "small - large aperture; -9999: none"),
    "deltaAperDetector": ("mag", "the same per detector; -9999: none"),
    "skyBackground": ("adu", "sky background per pixel"),
    "deepFlag": ("", "deep observation"),
    "scaling": ("", "flat adjustment per detector"),
    "used": ("", "visit has been ingested"),
    "sources_read": ("", "visit had sources read"),
}

ZEROPOINTS: Columns = {
    **_VISIT,
    **_DETECTOR,
    "fgcmFlag": ("", "1 photometric, 4 non-photometric, 16 no zeropoint"),
    "fgcmZpt": ("mag", "zeropoint at the center; -9999: none"),
    "fgcmZptErr": ("mag", "its error"),
    "fgcmfZptChebXyMax": ("pix", "largest x and y index"),
    "fgcmfZptCheb": ("", "zeropoint Chebyshev [y, x], in AB zero fluxes"),
    "fgcmfZptSstarCheb": ("", "superstar Chebyshev [y, x]"),
    "fgcmI0": ("", "integral of the passband"),
    "fgcmI10": ("Angstrom", "chromatic integral I1 / I0"),
    "fgcmR0": ("", "I0 dimmed by cloud"),
    "fgcmR10": ("Angstrom", "I10 again"),
    "fgcmGry": ("mag", "gray extinction, negative for cloud"),
    "fgcmDeltaChrom": ("mag", "chromatic correction of the mean star"),
    "fgcmZptVar": ("mag2", "variance of the zeropoint"),
    "fgcmTilings": ("", "photometric visits in the filter"),
    "fgcmFpGry": ("mag", "gray extinction, focal plane"),
    "fgcmFpGryBlue": ("mag", "the same, blue stars"),
    "fgcmFpGryBlueErr": ("mag", "its error"),
    "fgcmFpGryRed": ("mag", "the same, red stars"),
    "fgcmFpGryRedErr": ("mag", "its error"),
    "fgcmFpVar": ("mag2", "variance of gray, focal plane"),
    "fgcmDust": ("mag", "dust on the optics; not simulated"),
    "fgcmFlat": ("mag", "superstar at the center"),
    "fgcmAperCorr": ("mag", "aperture correction; not simulated"),
    "fgcmDeltaMagBkg": ("mag", "local background; not simulated"),
    "exptime": ("s", "exposure time"),
    "filtername": ("", "physical filter"),
}

ATMOSPHERE: Columns = {
    **_VISIT,
    **_WEATHER,
    "cTrans": ("", "slope of the mirror's transmission"),
    "lamStd": ("Angstrom", "wavelength to which it refers"),
}

STARS: Columns = {
    "id": ("", "star id"),
    "coord_ra": ("rad", "right ascension"),
    "coord_dec": ("rad", "declination"),
    "isolated_star_id": ("", "id of the isolated star"),
    "ngood": ("", "photometric observations, per band"),
    "ntotal": ("", "observations, per band"),
    "mag_std_noabs": ("mag", "standard magnitude, relative; 99: none"),
    "magErr_std": ("mag", "its error"),
    "npsfcand": ("", "PSF candidates; not simulated"),
    "delta_aper": ("mag", "small - large aperture; not simulated"),
}

LOOKUP: Columns = {
    "tablename": ("", "atmosphere table"),
    "elevation": ("m", "elevation of the site"),
    "physicalFilters": ("", "physical filters"),
    "stdPhysicalFilters": ("", "standard filter of each"),
    "pmbElevation": ("hPa", "pressure at the elevation"),
    "pwv": ("mm", "water vapour grid"),
    "o3": ("", "ozone grid (Dobson)"),
    "lambdaNorm": ("Angstrom", "wavelength of tau"),
    "zenith": ("deg", "zenith angle grid"),
    "nCcd": ("", "number of detectors"),
    "pmbStd": ("hPa", "standard pressure"),
    "pwvStd": ("mm", "standard water vapour"),
    "o3Std": ("", "standard ozone (Dobson)"),
    "tauStd": ("", "standard aerosol optical depth"),
    "alphaStd": ("", "standard aerosol exponent"),
    "zenithStd": ("deg", "standard zenith angle"),
    "lambdaRange": ("Angstrom", "wavelength range"),
    "lambdaStep": ("nm", "wavelength step"),
    "lambdaStd": ("Angstrom", "standard wavelength per filter"),
    "lambdaStdFilter": ("Angstrom", "the same, of the filter itself"),
    "i0Std": ("", "I0 of the standard passbands"),
    "i1Std": ("Angstrom", "I1 of the standard passbands"),
    "i10Std": ("Angstrom", "I10 of the standard passbands"),
    "lambdaB": ("Angstrom", "wavelength without atmosphere"),
    "atmLambda": ("Angstrom", "wavelengths"),
    "atmStdTrans": ("", "standard atmosphere"),
}

OBSERVATIONS: Columns = {
    **_VISIT,
    **_DETECTOR,
    "fgcm_id": ("", "star id"),
    **_SKY,
    "x": ("pix", "column"),
    "y": ("pix", "row"),
    "instFlux": ("adu", "flux as detected"),
    "instFluxErr": ("adu", "error it was drawn with"),
}

TRUE_STARS: Columns = {
    "fgcm_id": ("", "star id"),
    "isolated_star_id": ("", "id of the isolated star"),
    **_SKY,
    "teff": ("K", "temperature of the black body"),
    "mag": ("mag", "AB magnitude, standard passband per band"),
}

TRUE_ATMOSPHERE: Columns = {
    **_VISIT,
    "physicalFilter": ("", "physical filter"),
    "mjd": ("d", "time"),
    **_WEATHER,
    "gray": ("mag", "cloud at the field center"),
    "grayDx": ("mag", "its gradient in x, to the edge"),
    "grayDy": ("mag", "its gradient in y, to the edge"),
    "grayScatter": ("mag", "scatter of single observations"),
}

TRUE_ZEROPOINTS: Columns = {
    **_VISIT,
    **_DETECTOR,
    "zpt": ("mag", "AB magnitude of 1 adu at the center"),
    "i0": ("", "integral of the passband"),
    "gray": ("mag", "cloud at the center"),
    "illumination": ("mag", "superstar at the center"),
}

TRUE_OFFSETS: Columns = {
    "band": ("", "band"),
    "offset": ("mag", "true - relative magnitudes"),
}


def reference_columns(bands: Sequence[str]) -> Columns:
    """Return the columns of the reference catalog."""
    columns = {"id": ("", "reference star id"), **_SKY}
    for band in bands:
        columns[f"{band}_flux"] = ("nJy", "AB flux")
        columns[f"{band}_fluxErr"] = ("nJy", "its error")
    return columns


def passband_columns(physical_filters: Sequence[str]) -> Columns:
    """Return the columns of the table of passbands."""
    columns = {"wavelength": ("Angstrom", "wavelength")}
    columns |= dict.fromkeys(physical_filters, ("", "standard passband, with atmosphere"))
    return columns | {f"{n}_DET": ("", "throughput per detector") for n in physical_filters}
