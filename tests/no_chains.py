"""Forward passes that do not hand one tensor on, each for one reason."""

import contextlib
import random
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import relu

from tests.passes import Forward, Net

LIMIT = nn.Linear(1, 1)


def in_a_closure() -> Forward:
    relu = torch.tanh

    def closing(net: Net, x: Tensor) -> Tensor:
        return net.two(relu(net.one(x)))

    return closing


__act, _NoChains__act = relu, torch.tanh


class NoChains:
    """Forward passes of :class:`tests.passes.Net`."""

    def with_shortcut(net: Net, x: Tensor) -> Tensor:
        return net.pool(x) + net.two(net.pool(net.one(x).relu()))[:, :3]

    def with_inner_shortcut(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.one(x))
        return net.two(F.relu(net.layers[1](x)) + x)

    def in_place_shortcut(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.one(x))
        y = net.layers[1](x)
        y += x
        return net.two(y)

    def by_method(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.one(x))
        return net.two(net.layers[1](x).add(x))

    def as_argument(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.one(x))
        return net.two(torch.add(net.layers[1](x), x))

    def with_an_older_one(net: Net, x: Tensor) -> Tensor:
        y = F.relu(net.one(x))
        net.layers[1](y)
        return net.two(y)

    def returning_an_older_one(net: Net, x: Tensor) -> Tensor:
        y = F.relu(net.one(x))
        x = net.two(y)
        return y

    def concatenated(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.one(x))
        return net.two(torch.cat((net.layers[1](x)[:, :4], x[:, :4]), 1))

    def scaled(net: Net, x: Tensor) -> Tensor:
        return net.two(0.1 * net.one(x).relu()).relu()

    def shuffled(net: Net, x: Tensor) -> Tensor:
        x = net.one(x).relu()
        return net.two(x.view(-1, 8, 4, 4)).relu()

    def gated(net: Net, x: Tensor) -> Tensor:
        x = net.one(x)
        return net.two(x * x.sigmoid()).relu()

    def by_value(net: Net, x: Tensor) -> Tensor:
        x = net.one(x).relu()
        return net.two(x) if x.mean() > 0 else x

    def by_flag(net: Net, x: Tensor) -> Tensor:
        x = net.one(x).relu()
        if net.training:
            x = x * 2
        return net.two(x).relu()

    def keeping(net: Net, x: Tensor) -> Tensor:
        net.kept = net.one(x).relu()
        return net.two(net.kept).relu()

    def appending(net: Net, x: Tensor) -> Tensor:
        net.kept.append(x)
        return net.two(net.one(x).relu()).relu()

    def weight_used(net: Net, x: Tensor) -> Tensor:
        return F.conv2d(net.one(x).relu(), net.two.weight).relu()

    def many(net: Net, x: Tensor) -> tuple[Tensor, ...]:
        x = net.one(x).relu()
        return net.two(x).relu(), x

    def in_a_dict(net: Net, x: Tensor) -> dict[str, Tensor]:
        return {"logits": net.two(net.one(x).relu()).relu()}

    def returning_nothing(net: Net, x: Tensor) -> None:
        x = net.two(net.one(x).relu())

    def returning_early(net: Net, x: Tensor) -> Tensor:
        return net.two(net.one(x))
        return net.one(x)

    def with_a_loop_named_as_the_module(net: Net, x: Tensor) -> Tensor:
        x = net.one(x)
        for net in net.layers:  # noqa: B007, B020, PLR1704
            x = x.relu()
        return net.two(x)

    def with_a_loop_named_as_the_image(net: Net, x: Tensor) -> Tensor:
        x = net.one(x)
        for x in net.layers:  # noqa: B007
            pass
        return net.two(x)

    def of_patches(net: Net, x: Tensor) -> Tensor:
        return net.two(net.one(x.view(-1, 3, 4, 4)).relu()).relu()

    def flat_between(net: Net, x: Tensor) -> Tensor:
        x = net.one(x.view(-1, 3, 8, 8)).flatten(1)
        return net.two(x.view(-1, 8, 8, 8)).relu().flatten(1)

    def of_a_list(net: Net, x: Tensor) -> Tensor:
        return net.two(net.pool(net.one(x).relu())).relu().view([-1, 3, 8, 8])

    def of_a_list_of_sizes(net: Net, x: Tensor) -> Tensor:
        return torch.reshape(net.two(net.pool(net.one(x).relu())).relu(), [x.size(0), 4, 8, 8])

    def of_any_axes(net: Net, x: Tensor) -> Tensor:
        return net.two(net.pool(net.one(x).relu())).relu().view(x.shape[:2])

    def in_a_context(net: Net, x: Tensor) -> Tensor:
        with contextlib.suppress(RuntimeError):
            x = net.two(net.one(x).relu())
        return x

    def trying(net: Net, x: Tensor) -> Tensor:
        try:
            return net.two(net.one(x).relu())
        except RuntimeError:
            return x

    def generating(net: Net, x: Tensor) -> Iterator[Tensor]:
        yield net.two(net.one(x).relu())

    async def waiting(net: Net, x: Tensor) -> Tensor:
        return net.two(net.one(x).relu())

    def with_a_lambda(net: Net, x: Tensor) -> Tensor:
        x = net.one(x).relu()
        add = lambda y: x + y  # noqa: E731
        return add(net.layers[1](x))

    def with_a_closure(net: Net, x: Tensor) -> Tensor:
        x = net.one(x).relu()
        return net.two(torch.stack([part.abs() for part in (x, x)]).amax(0))

    def with_a_walrus(net: Net, x: Tensor) -> Tensor:
        return net.two(net.layers[1](y := net.one(x)).relu() + y)

    def with_a_hidden_name(net: Net, x: Tensor) -> Tensor:
        F = net
        return F.two(F.one(x).relu()).relu()

    def shadowing(net: Net, x: Tensor, relu: Forward = torch.neg) -> Tensor:
        return net.two(relu(net.one(x)))

    def with_a_second_image(net: Net, x: Tensor, other: Tensor) -> Tensor:
        return net.two(net.one(x + other).relu()).relu()

    def keyword(net: Net, x: Tensor) -> Tensor:
        return net.two(F.relu(input=net.one(x))).relu()

    def unpacked(net: Net, *x: Tensor) -> Tensor:
        return net.two(F.relu(net.one(*x))).relu()

    def with_indices(net: Net, x: Tensor) -> Tensor:
        return net.two(F.max_pool2d(net.one(x), 2, return_indices=True)[0]).relu()

    def by_forward(net: Net, x: Tensor) -> Tensor:
        return net.two.forward(net.one(x).relu()).relu()

    def over_all(net: Net, x: Tensor) -> Tensor:
        for layer in net.children():
            x = layer(x)
        return x

    def many_times(net: Net, x: Tensor) -> Tensor:
        x = net.one(x)
        for _ in range(3):
            x = net.layers[1](x)
        return x

    def and_no_more(net: Net, x: Tensor) -> Tensor:
        for layer in net.layers:
            x = layer(x)
        else:
            x = net.two(x)
        return x

    def of_the_loop(net: Net, x: Tensor) -> Tensor:
        for layer in net.layers:
            x = layer(x)
        return layer(x)

    def of_a_property(net: Net, x: Tensor) -> Tensor:
        return net.two(net.one(x).relu()).relu().softmax(net.last)

    def from_a_call(net: Net, x: Tensor) -> Tensor:
        return net.two(net.one(x).relu()).relu().flatten(int(random.random()))

    def of_the_class(net: Net, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(net.two(net.one(x).relu()).relu(), net.size)

    def resized(net: Net, x: Tensor) -> Tensor:
        return net.two(F.interpolate(net.one(x).relu(), scale_factor=2)).relu()

    def with_a_stranger(net: Net, x: Tensor) -> Tensor:
        return net.two(LIMIT(net.one(x)).relu()).relu()

    def changed_later(net: Net, x: Tensor) -> Tensor:
        x = net.one(x).relu()
        x[0] = 0
        return net.two(x).relu()

    def deleting(net: Net, x: Tensor) -> Tensor:
        y = net.one(x).relu()
        del x
        return net.two(y)

    def asserting(net: Net, x: Tensor) -> Tensor:
        assert net.kept.append(x) is None
        return net.two(net.one(x)).relu()

    def asserting_twice(net: Net, x: Tensor) -> Tensor:
        assert 1 < x.ndim < 5
        return net.two(net.one(x)).relu()

    def asserting_what_is_said(net: Net, x: Tensor) -> Tensor:
        assert x.ndim == 4, net.one(x)
        return net.two(net.one(x)).relu()

    def printing_what_is_called(net: Net, x: Tensor) -> Tensor:
        print(net.kept.append(x))
        return net.two(net.one(x)).relu()

    def replaced(net: Net, x: Tensor) -> Tensor:
        net = net.layers
        return net[0](x)

    def empty(net: Net, x: Tensor) -> Tensor:
        return x

    def alone(net: Net) -> Tensor:
        return net.mean

    def an_image(net: Net, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        return net.two(net.pool(net.one(x).relu())).relu().view(n, 4, 2, 2, h // 2, w // 2).permute(0, 1, 4, 2, 5, 3)

    def grey(net: Net, x: Tensor) -> Tensor:
        return net.two(net.pool(net.one(x).relu())).relu().mean(1, keepdim=True)

    def grey_at_once(net: Net, x: Tensor) -> Tensor:
        return net.two(net.one(x.mean(1, keepdim=True).expand(x.shape)).relu()).relu()

    def of_a_mean(net: Net, x: Tensor) -> Tensor:
        return net.two(net.one(x.mean(1, keepdim=True)).relu()).relu()

    def on_rows(net: Net, x: Tensor) -> Tensor:
        x = net.two(net.pool(net.one(x).relu())).relu()
        return net.head(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def of_pixels(net: Net, x: Tensor) -> Tensor:
        x = net.two(net.pool(net.one(x).relu())).relu()
        return F.softmax(x.view(-1, 16), 1).view(x.size(0), 16, 4, 4)

    def flat_and_back(net: Net, x: Tensor) -> Tensor:
        return net.two(net.pool(net.one(x).relu())).relu().flatten(1).view(-1, 16, 4, 4)

    def with_a_slope_of_two(net: Net, x: Tensor) -> Tensor:
        return net.two(F.leaky_relu(net.one(x), (0.1,))).relu()

    def with_no_slope(net: Net, x: Tensor) -> Tensor:
        return net.two(F.leaky_relu(net.one(x), None)).relu()

    def with_a_name_of_the_class(net: Net, x: Tensor) -> Tensor:
        return __act(net.two(net.one(x)))  # which is _NoChains__act

    def with_words(net: Net, x: Tensor) -> Tensor:
        return net.two(F.max_pool2d(net.one(x), "two")).relu()

    def with_nothing(net: Net, x: Tensor) -> Tensor:
        return net.two(F.avg_pool2d(net.one(x), 2, [None, 2])).relu()

    def a_part_of_an_older_one(net: Net, x: Tensor) -> Tensor:
        y = net.one(x)
        x = net.layers[1](y)
        return net.two(y)

    def a_function_of_an_older_one(net: Net, x: Tensor) -> Tensor:
        y = net.one(x)
        x = net.layers[1](y)
        y = F.relu(y)
        return net.two(y)

    def a_method_of_an_older_one(net: Net, x: Tensor) -> Tensor:
        y = net.one(x)
        x = net.layers[1](y)
        y = y.relu()
        return net.two(y)

    def half_of_an_older_one(net: Net, x: Tensor) -> Tensor:
        y = net.one(x)
        x = net.two(y)
        return y / 2

    def a_size_as_an_image(net: Net, x: Tensor) -> Tensor:
        x = x.shape
        return net.two(net.one(x))

    def an_image_as_a_size(net: Net, x: Tensor) -> Tensor:
        y = x.shape
        y = net.one(x)
        return net.two(y).softmax(y)

    def with_two(net: Net, x: Tensor) -> Tensor:
        return net.two(net.one(x, 1))

    def with_an_option(net: Net, x: Tensor) -> Tensor:
        return net.two(net.one(x, output_size=2))

    def with_too_much(net: Net, x: Tensor) -> Tensor:
        return net.two(F.relu(net.one(x), True, 1))

    def with_an_unknown_option(net: Net, x: Tensor) -> Tensor:
        return net.two(F.relu(net.one(x), outplace=True))

    def with_an_older_one_as_option(net: Net, x: Tensor) -> Tensor:
        y = net.one(x)
        return net.two(F.dropout(y, x))

    def with_data_as_option(net: Net, x: Tensor) -> Tensor:
        return net.two(F.dropout(net.one(x), x.data))

    def with_an_argument_as_option(net: Net, x: Tensor, relu: Any = None) -> Tensor:
        return net.two(net.one(x)).softmax(relu)

    def with_another_length(net: Net, x: Tensor, len: Any = None) -> Tensor:
        return net.two(net.one(x)).softmax(len(x))

    def flat_but_two(net: Net, x: Tensor) -> Tensor:
        return net.two(net.one(x)).flatten(2)

    def named_as_the_module(net: Net, x: Tensor) -> Tensor:
        net = net.one(x)
        return net  # noqa: RET504

    def looping_over_itself(net: Net, x: Tensor) -> Tensor:
        for net in net.layers:  # noqa: B020, PLR1704
            x = net(x)
        return x

    def looping_over_the_image(net: Net, x: Tensor) -> Tensor:
        for x in net.layers:  # noqa: PLR1704
            y = x(x)
        return y


NO_CHAINS = [*(each for each in vars(NoChains).values() if isinstance(each, FunctionType)), in_a_closure()]
