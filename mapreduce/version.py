"""Which skyfold this is."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("skyfold")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "unknown"
