import pytest
import torch

from training.images.augment import Augment, affine, cropped, moved, transformed


def test_images_are_shifted_and_flipped() -> None:
    images = torch.arange(2.0 * 3 * 6 * 5).view(2, 3, 6, 5) + 1
    still = torch.full((2, 2), 4)
    assert torch.equal(moved(images, still, torch.tensor([0, 0])), images)
    flipped = moved(images, still, torch.tensor([0, 1]))
    assert torch.equal(flipped[0], images[0]) and torch.equal(flipped[1], images[1].flip(-1))
    found = moved(images, torch.tensor([[5, 4], [4, 2]]), torch.tensor([0, 0]))
    assert torch.equal(found[0, :, :-1], images[0, :, 1:]) and not found[0, :, -1].any()
    assert torch.equal(found[1, :, :, 2:], images[1, :, :, :-2]) and not found[1, :, :, :2].any()


def test_crops_are_those_of_a_shift_and_a_flip() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 2, 6, 6)
    found = cropped(image.expand(300, -1, -1, -1))
    shifts = [torch.tensor([[row, column]]) for row in range(9) for column in range(9)]
    possible = torch.cat([moved(image, shift, torch.tensor([flip])) for shift in shifts for flip in (0, 1)])
    which = (found[:, None] == possible).flatten(2).all(2)
    assert (which.sum(1) >= 1).all() and which.any(0).float().mean() > 0.7


def test_affine_maps_have_known_answers() -> None:
    images, one, zero = torch.rand(2, 3, 8, 8), torch.eye(2).expand(2, 2, 2), torch.zeros(2, 2)
    torch.testing.assert_close(transformed(images, one, zero), images)
    shifted = transformed(images, one, torch.tensor([[1.0, 0.0], [0.0, -2.0]]))
    torch.testing.assert_close(shifted[0, :, :, :-1], images[0, :, :, 1:])
    torch.testing.assert_close(shifted[1, :, 2:], images[1, :, :-2])
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).expand(2, 2, 2)
    torch.testing.assert_close(transformed(images, quarter, zero), images.rot90(1, (2, 3)))
    wide = torch.rand(1, 1, 4, 12)
    mirrored = transformed(wide, torch.tensor([[[-1.0, 0.0], [0.0, 1.0]]]), torch.zeros(1, 2))
    torch.testing.assert_close(mirrored, wide.flip(3))


def test_random_affine_maps_stay_within_their_limits() -> None:
    """A spot in the middle moves by up to 2 pixels in the old image, and its area changes."""
    torch.manual_seed(0)
    spot = torch.zeros(500, 1, 28, 28)
    spot[:, :, 13:15, 13:15] = 0.25
    place = torch.arange(28.0) - 13.5
    found = affine(spot)
    across, down = ((found.sum(axis) * place).sum((1, 2)) / found.sum((1, 2, 3)) for axis in (2, 3))
    assert across.abs().max() < 2 * 1.4 and across.std() > 0.9 and down.std() > 0.9 and across.mean().abs() < 0.2
    assert found.sum((1, 2, 3)).std() > 0.1


def test_each_image_has_its_own_copies() -> None:
    torch.manual_seed(0)
    images = torch.rand(3, 1, 8, 8)
    found = Augment("affine", copies=4)(images)
    assert found.shape == (3, 4, 1, 8, 8) and not torch.equal(found[:, 0], found[:, 1])
    with pytest.raises(ValueError, match="augmentation must be one of affine, crop and flip; got 'mixup'"):
        Augment("mixup")
    with pytest.raises(ValueError, match="copies must be a whole number from 1; got 0"):
        Augment("affine", 0)
