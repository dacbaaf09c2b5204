import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dwp_init.bytecode import only_calls


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Identity(), nn.Identity())

    def first(self, x: Tensor) -> Tensor:
        return self.body(x)

    def unused(self, x: Tensor) -> Tensor:
        return self.body[0](x)


class Plain(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).relu()


class Decorated(Base):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Inherited(Plain):
    pass


class Extended(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


class Elsewhere(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.first(x)


class Nested(Base):
    def forward(self, x: Tensor) -> Tensor:
        return functools.reduce(lambda y, _: self.body(y), range(1), x)


class Walked(Base):
    def forward(self, x: Tensor) -> Tensor:
        for part in self.body:
            x = x + part(x)
        return x


class Indexed(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.body[0](x)


class Added(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x


class AddedInPlace(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        y += x
        return y


class AddedInside(Base):
    def forward(self, x: Tensor) -> Tensor:
        return functools.reduce(lambda y, _: y + self.body(y), range(2), x)


class Joined(Base):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


class Passed(Base):
    def forward(self, x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=False)


class WalkedElsewhere(Elsewhere):
    def first(self, x: Tensor) -> Tensor:
        return functools.reduce(lambda y, part: y + part(y), self.body, x)


class Overridden(Plain):
    """Its base class, whose forward pass nobody runs, calls the parts as one."""

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = x + part(x)
        return x

    @property
    def parts(self) -> list[nn.Module]:
        return list(self.body)


class Children(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return functools.reduce(lambda y, part: y + part(y), next(self.children()), self.body(x))


class HalfWalked(Elsewhere):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + super().unused(x)


class Properties(Overridden):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + sum(part(x) for part in self.parts)


def around_itself() -> Base:
    class Looped(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    vars(Looped)["forward"].__wrapped__ = vars(Looped)["forward"]
    return Looped()


class Other(Base):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        *((each, True) for each in (Plain, Decorated, Inherited, Extended, Elsewhere, Nested)),
        *(
            (each, False)
            for each in (
                Walked,
                Indexed,
                Added,
                AddedInPlace,
                AddedInside,
                Joined,
                Passed,
                WalkedElsewhere,
                Other,
                Base,
            )
        ),
        *((each, False) for each in (Overridden, Children, HalfWalked, Properties, around_itself)),
        (lambda: nn.Sequential(nn.Identity()), False),
    ],
)
def test_a_module_only_calls_an_attribute(make: Callable[[], Any], expected: bool) -> None:
    assert only_calls(make(), "body") is expected


def test_a_forward_pass_of_one_object_is_not_known() -> None:
    module = Plain()
    vars(module)["forward"] = lambda x: x + module.body[0](x)
    assert not only_calls(module, "body")
