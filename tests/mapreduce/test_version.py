import runpy
from importlib import metadata

import calibration as cal
import mapreduce as mr
from mapreduce import version


def test_both_packages_are_of_the_version_that_is_installed():
    assert mr.__version__ == cal.__version__ == metadata.version("skyfold")


def test_a_checkout_that_is_not_installed_is_of_no_known_version(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert runpy.run_path(version.__file__)["__version__"] == "unknown"
