import torch

from training.images.augment import moved


def test_images_are_shifted_and_flipped() -> None:
    images = torch.arange(2.0 * 3 * 6 * 5).view(2, 3, 6, 5) + 1
    still = torch.full((2, 2), 4)
    assert torch.equal(moved(images, still, torch.tensor([0, 0])), images)
    flipped = moved(images, still, torch.tensor([0, 1]))
    assert torch.equal(flipped[0], images[0]) and torch.equal(flipped[1], images[1].flip(-1))
    found = moved(images, torch.tensor([[5, 4], [4, 2]]), torch.tensor([0, 0]))
    assert torch.equal(found[0, :, :-1], images[0, :, 1:]) and not found[0, :, -1].any()
    assert torch.equal(found[1, :, :, 2:], images[1, :, :, :-2]) and not found[1, :, :, :2].any()
