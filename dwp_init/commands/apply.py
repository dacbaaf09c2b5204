"""``dwp-init apply``: a model of the user is initialised."""

import argparse
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from dwp_init.commands.base import PRIOR, in_folder
from dwp_init.initialize import Scale, apply_
from dwp_init.user_model import load_model, save_state


@dataclass(frozen=True)
class ApplyCommand:
    """Shows what apply_ would do to a model; with --save, does it."""

    model: str
    prior: list[str]
    layers: list[str] | None
    scale: Scale
    orthogonal: bool | None
    resize: bool
    seed: int
    save: str | None

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "model",
            metavar="MODULE:FACTORY",
            help="a function, class or model, such as my.nets:make_net or 'my.nets:make_net(10, width=32)'; or an "
            "architecture: timm:resnet18, torchvision:resnet18",
        )
        parser.add_argument("--prior", action="append", required=True, metavar="PRIOR", help=f"{PRIOR}; repeatable")
        parser.add_argument(
            "--layers", action="extend", nargs="+", metavar="PATTERN", help="only layers whose names match"
        )
        parser.add_argument(
            "--scale",
            choices=get_args(Scale),
            default=inspect.signature(apply_).parameters["scale"].default,
            help="keep the strength of each layer, take that of He's initialisation for its fan-in, or that of the "
            "prior's source networks; auto leaves the kernels of layers that a set keeps (%(default)s)",
        )
        parser.add_argument(
            "--orthogonal", action=argparse.BooleanOptionalAction, help="whether to make output channels orthogonal"
        )
        parser.add_argument(
            "--resize", action="store_true", help="resize kernels for layers of a size that no prior has"
        )
        parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
        parser.add_argument("--save", metavar="FILE.safetensors", help="draw kernels and save the model's state_dict")

    def run(self) -> None:
        target = None if self.save is None else _checked_target(self.save)
        torch.manual_seed(self.seed % 2**63)  # so that the factory's own layers are reproducible too
        model = load_model(self.model)
        report = apply_(
            model,
            self.prior,
            layers=self.layers,
            scale=self.scale,
            orthogonal=self.orthogonal,
            resize=self.resize,
            seed=self.seed,
            dry_run=target is None,
        )
        if target is not None:
            save_state(model, target)
        print(report)
        dry = "dry run: nothing was drawn; --save FILE.safetensors draws and saves"
        print(f"\nsaved: {target}" if target else f"\n{dry}")


def _checked_target(file: str) -> Path:
    target = Path(file)
    if target.suffix != ".safetensors":
        raise ValueError(f"--save writes safetensors, so the name must end in .safetensors; got {target.name!r}")
    return in_folder(target, "--save")
