"""Which views share memory, compared with the addresses of all their elements."""

import random

import pytest
import torch

from dwp_init.places import Span


def span(start: int, shape: tuple[int, ...], steps: tuple[int, ...]) -> Span:
    last = sum((size - 1) * step for size, step in zip(shape, steps, strict=True))
    return Span(torch.device("cpu"), start, start + last + 1, torch.Size(shape), steps)


def addresses(view: Span) -> set[int]:
    found = {view.start}
    for size, step in zip(view.shape, view.steps, strict=True):
        found = {address + i * step for address in found for i in range(size)}
    return found


def test_views_overlap_where_they_have_an_address_in_common() -> None:
    dice, answers = random.Random(0), []
    for _ in range(2000):
        one, other = (
            span(dice.randrange(30), tuple(dice.choices(range(1, 5), k=3)), tuple(dice.choices(range(12), k=3)))
            for _ in range(2)
        )
        answers.append(bool(addresses(one) & addresses(other)))
        assert one.overlaps(other) is other.overlaps(one) is answers[-1], (one, other)
    assert 0.2 < sum(answers) / len(answers) < 0.8


@pytest.mark.parametrize(("offset", "shared"), [(1, False), (10**7, False), (2 * 10**7 + 2, True), (10**14, False)])
def test_large_views_take_no_memory(offset: int, shared: bool) -> None:
    """Every second element of the first half of each row: others and the second half interlock."""
    shape, steps = (10**6, 10**7 // 2), (2 * 10**7, 2)
    assert span(0, shape, steps).overlaps(span(offset, shape, steps)) is shared
