import numpy as np

from mapreduce.picture import by_block, thinned


def test_block_means_leave_nans_out():
    image = np.array([[1.0, 3.0, np.nan], [np.nan, np.nan, np.nan], [5.0, 7.0, 9.0]])
    means, block = thinned(image, 2)
    assert block == 2
    np.testing.assert_array_equal(means, [[2, np.nan], [6, 9]])


def test_mask_blocks_keep_every_bit():
    bits = np.array([[1, 0, 0], [2, 0, 4]])
    np.testing.assert_array_equal(by_block(np.bitwise_or, bits, 2), [[3, 4]])


def test_huge_images_are_read_sparsely():
    image = np.broadcast_to(np.float32(1), (100_000, 100_000))
    means, block = thinned(image, 256)
    assert max(means.shape) <= 256
    assert block * means.shape[0] >= 100_000
    assert (means == 1).all()
