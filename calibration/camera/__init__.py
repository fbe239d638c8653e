"""The geometry of a camera: detectors on a focal plane, and the areas of their pixels."""

from .camera import Camera
from .detector import Detector, WcsDetector
from .focal_plane import Boresight, RadialTransform

__all__ = ["Boresight", "Camera", "Detector", "RadialTransform", "WcsDetector"]
