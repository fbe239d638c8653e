"""An FGCM run with known truth: camera, atmosphere, instrument, sky, and what is observed of it."""

from .instrument import simulate_camera
from .run import simulate_run

__all__ = ["simulate_camera", "simulate_run"]
