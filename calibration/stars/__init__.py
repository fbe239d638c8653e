"""The standard stars of a run, by tract."""

from .tracts import TractStars, tract_stars

__all__ = ["TractStars", "tract_stars"]
