"""Networks by name: those of the paper, small modern ones, and those of the package timm; arguments in brackets."""

import ast
import difflib
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from training.networks.modern import VGG, ConvMixer, ConvNeXt, MobileNet, ResNet
from training.networks.paper import CIFARNet, CIFARSource, ImageShape, MNISTNet
from training.networks.plain import AllCNN, NetworkInNetwork, SpeedNet, TutorialNet

TIMM = "timm:"  # what the name of a network of timm begins with
_GIVEN = ("model_name", "pretrained", "checkpoint_path", "num_classes", "in_chans")  # arguments of timm set here


def _resnet_7x7(filters: tuple[int, ...], classes: int, image_shape: ImageShape) -> ResNet:
    """A ResNet with one block in each stage, so that every layer has a different depth, and a 7×7 stem."""
    return ResNet(filters, classes, image_shape, blocks=1, stem=7)


NETWORKS: dict[str, Callable[..., nn.Module]] = {  # of filters, classes and image_shape, then options: whole numbers
    "mnist": MNISTNet,
    "cifar": CIFARNet,
    "cifar-source": CIFARSource,
    "resnet": ResNet,
    "resnet-7x7-stem": _resnet_7x7,
    "convmixer": ConvMixer,
    "convnext": ConvNeXt,
    "mobilenet": MobileNet,
    "vgg": VGG,
    "allcnn": AllCNN,
    "nin": NetworkInNetwork,
    "speed": SpeedNet,
    "tutorial": TutorialNet,
}


def build(name: str, filters: tuple[int, ...], classes: int, image_shape: ImageShape) -> nn.Module:
    """Builds an untrained network.

    Args:
        name: A name of ``NETWORKS``, or ``timm:NAME``, such as ``timm:resnet18``, for a network of timm. Arguments
            follow in the syntax of a call, with literal values: ``mobilenet(kernel=5, stride=2)`` and
            ``timm:resnet18(channels=(32, 64, 96, 128))``.
        filters: Numbers of channels, see the network's class. They must be empty for networks of timm, whose names
            or arguments contain the width where there is a choice, as in ``timm:mobilenetv3_small_050``.
        classes: Number of classes.
        image_shape: ``(c, h, w)``.

    Raises:
        ValueError: There is no network of that name, or arguments, ``filters`` or the images do not suit it.
        ImportError: The name begins with ``timm:``, and timm is not installed.
    """
    called, options = _parse_call(name)
    if called.startswith(TIMM):
        return _build_timm(called, options, filters, classes, image_shape[0])
    if called not in NETWORKS:
        raise ValueError(
            f"unknown network {called!r}; there are {', '.join(NETWORKS)}, and {TIMM}NAME for those of timm"
        )
    if not filters or min(filters) < 1:
        raise ValueError(f"filters are numbers of channels, 1 or more each; got {tuple(filters)}")
    _check_options(called, options)
    return NETWORKS[called](tuple(filters), classes, image_shape, **options)


def _parse_call(name: str) -> tuple[str, dict[str, Any]]:
    """Splits ``NAME(key=literal, …)`` into the name and the arguments; nothing of it is evaluated."""
    called, bracket, _ = name.partition("(")
    if not bracket:
        return name, {}
    wrong = f"arguments of a network are written NAME(key=value, …), as in resnet(blocks=2, stride=2); got {name!r}"
    try:
        call = ast.parse(f"_{name.removeprefix(called)}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(wrong) from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise ValueError(wrong)
    options: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in options:
            raise ValueError(wrong)
        try:
            options[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
            value = ast.unparse(keyword.value)
            raise ValueError(
                f"{keyword.arg}={value} of {name!r} is not a literal; write numbers, texts in quotes, tuples of them, "
                "True, False or None"
            ) from error
    return called, options


def _check_options(called: str, options: dict[str, Any]) -> None:
    takes = list(inspect.signature(NETWORKS[called]).parameters)[3:]
    if unknown := [key for key in options if key not in takes]:
        raise ValueError(f"{called} has no argument {unknown[0]!r}; it takes {', '.join(takes) or 'none'}")
    for key, value in options.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{key} of {called} is a whole number, 1 or more; got {value!r}")


def _build_timm(name: str, options: dict[str, Any], filters: tuple[int, ...], classes: int, channels: int) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"{name!r} needs the package timm; install it with: pip install timm") from error
    model = name.removeprefix(TIMM)
    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(TIMM + match for match in near)}?" if near else "see timm.list_models()"
        raise ValueError(f"timm has no network {model!r}; {hint}")
    if filters:
        raise ValueError(
            f"{name!r} takes no filters, because the names of timm contain the width where there is a choice, as in "
            f"{TIMM}mobilenetv3_small_050, or it is an argument, as in {TIMM}resnet18(channels=(32, 64, 128, 256)); "
            f"got {tuple(filters)}, expected ()"
        )
    if given := [key for key in options if key in _GIVEN]:
        raise ValueError(
            f"{given[0]} of {name!r} cannot be set: networks are untrained, with the classes and channels of the data"
        )
    try:
        network: nn.Module = timm.create_model(
            model, pretrained=False, num_classes=classes, in_chans=channels, **options
        )
    except (TypeError, ValueError, AttributeError, LookupError, AssertionError, RuntimeError) as error:
        if not options:
            raise
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise ValueError(f"{name!r} does not take {_written(options)} ({reason}); {_timm_takes(model)}") from error
    return network


def _written(options: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in options.items())


def _timm_takes(model: str) -> str:
    import timm
    import torch

    with torch.device("meta"):
        kind = type(timm.create_model(model))
    takes = [key for key in inspect.signature(kind).parameters if key not in _GIVEN]
    return f"its class {kind.__name__} takes {', '.join(takes)}"
