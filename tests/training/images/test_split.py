import re

import pytest
import torch

from training.images.split import hold_out, parts, stratified, thin


@pytest.mark.parametrize(("count", "most", "expected"), [(10, 4, [0, 3, 6, 9]), (10, 10, [*range(10)]), (9, 8, 5)])
def test_thinned_rows_are_evenly_spaced(count: int, most: int, expected: list[int] | int) -> None:
    found = thin(torch.arange(count), most).tolist()
    assert found == (expected if isinstance(expected, list) else [*range(0, count, 2)])


def test_what_is_held_out_replaces_the_test_images() -> None:
    train, test = (torch.arange(6.0), torch.arange(6)), (torch.zeros(2), torch.zeros(2).long())
    assert hold_out(train, test, 0) == (train, test)
    (images, labels), (held_images, held_labels) = hold_out(train, test, 2)
    assert images.tolist() == labels.tolist() == [0, 1, 2, 3]
    assert held_images.tolist() == held_labels.tolist() == [4, 5]
    for count in (6, -1):
        with pytest.raises(ValueError, match=f"hold_out must leave some of 6 training images; got {count}"):
            hold_out(train, test, count)


@pytest.mark.parametrize("size", [10, 50, 200])
def test_stratified_parts_differ_by_seed(size: int) -> None:
    labels = torch.randint(10, (3000,), generator=torch.Generator().manual_seed(0))
    picked = [stratified(labels, size, seed) for seed in range(3)]
    assert all(labels[part].bincount().tolist() == [size // 10] * 10 for part in picked)
    assert all(len(part.unique()) == size for part in picked)
    assert not torch.equal(picked[0], picked[1])
    assert torch.equal(picked[2], stratified(labels, size, 2))


@pytest.mark.parametrize(("size", "least"), [(25, 10), (110, 10), (0, 10), (-10, 10)])
def test_sizes_that_cannot_be_stratified(size: int, least: int) -> None:
    message = f"a multiple of 10 images, as there are that many classes, and at most {least} of each class; got {size}"
    with pytest.raises(ValueError, match=message):
        stratified(torch.arange(100) % 10, size, 0)


@pytest.mark.parametrize("counts", [(20, 30, 10), (7, 25, 4), (100,), (60, 40)])
def test_parts_are_disjoint_and_stratified(counts: tuple[int, ...]) -> None:
    """Classes, whatever their labels, differ by at most one image in each part; the seed decides on the images."""
    labels = 3 * (torch.randperm(100, generator=torch.Generator().manual_seed(1)) % 10)
    found = parts(labels, counts)
    assert [len(part) for part in found] == [*counts] and len(torch.cat(found).unique()) == sum(counts)
    for part in found:
        each = labels[part].bincount(minlength=28)[::3]
        assert each.max() - each.min() <= 1
    assert all(map(torch.equal, found, parts(labels, counts)))
    assert not torch.equal(found[0], parts(labels, counts, seed=1)[0])


def test_a_larger_class_fills_what_smaller_ones_lack() -> None:
    labels = torch.tensor([0] * 3 + [1] * 20)
    first, second = parts(labels, (4, 8))
    assert labels[first].bincount().tolist() == [2, 2] and labels[second].bincount().tolist() == [1, 7]


def test_a_part_may_be_empty() -> None:
    first, none, rest = parts(torch.arange(100) % 10, (20, 0, 80))
    assert (len(first), len(none), len(rest)) == (20, 0, 80)


@pytest.mark.parametrize(
    ("counts", "message"), [((60, 41), r"\(60, 41\), 101 in all"), ((5, -1), "0 images or more each")]
)
def test_parts_that_cannot_be_made(counts: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match="at most 100 in all") as caught:
        parts(torch.arange(100) % 10, counts)
    assert re.search(message, str(caught.value))
