"""The geometry of a camera: detectors on a focal plane, and the areas of their pixels."""
