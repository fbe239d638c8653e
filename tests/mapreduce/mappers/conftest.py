import numpy as np
import pytest

from mapreduce import Exposure


@pytest.fixture
def noisy():
    image = np.random.default_rng(1).normal(100, 5, (60, 70)).astype(np.float32)
    image[20:23, 30:33] = np.nan
    image[50, :] = np.nan
    exposure = Exposure(image, np.full(image.shape, 25, np.float32), np.zeros(image.shape, int))
    for plane in exposure.planes.values():
        plane.flags.writeable = False
    return exposure
