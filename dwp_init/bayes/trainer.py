"""Algorithm 1: stochastic variational inference, for several networks in one pass."""

import copy
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from dwp_init.bayes.layers import scale_names
from dwp_init.bayes.objective import Objective, Terms
from dwp_init.bayes.schedule import Descent, Schedule
from dwp_init.tensors import as_list

Tensors = dict[str, Tensor]


class Trainer:
    """Trains one network, or several of the same kind in one pass (``torch.func.vmap``).

    :meth:`state_dict` holds everything that :meth:`run` needs to resume, including the random state. A resumed run is
    the same bit for bit on a CPU, and on CUDA as far as cuDNN's kernels are deterministic. PyTorch's global random
    state is not changed.

    Args:
        objectives: One per network. They may differ in the parameters of networks and reverse models, and are copied.
        images: The training set of each network, ``(networks, n, c, h, w)``.
        labels: ``(networks, n)``.
        schedule: The schedule of the training.
        seed: Seed of all random numbers.
        augment: Makes random copies of the images ``(n, c, h, w)`` of a step, ``(n, copies, c, h, w)`` if the
            objectives are ``augmented`` and ``(n, c, h, w)`` if not, from PyTorch's global random numbers. None by
            default.

    Attributes:
        step: Number of steps taken.
        terms: The parts of the bound in the last step, ``nll`` ``(networks,)`` and ``kl`` ``(networks, layers)``;
            ``None`` before the first.

    Raises:
        ValueError: The numbers of networks differ, or the objectives differ in anything but the values that their
            networks and what is trained have: in priors, in classes or settings of layers and terms, in which
            parameters are trained, or in the number of kernels used.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        images: Tensor,
        labels: Tensor,
        schedule: Schedule,
        seed: int = 0,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if not objectives or len(images) != len(objectives) or images.shape[:2] != labels.shape:
            raise ValueError(
                f"images and labels must be (networks, n, ...) for {len(objectives)} networks, 1 or more; got "
                f"{tuple(images.shape)} and {tuple(labels.shape)}"
            )
        if labels.numel() and labels.min() < 0:
            raise ValueError(f"labels are class numbers from 0 on; got {labels.min()}")
        _check_alike(objectives)
        self.schedule, self.images, self.labels = schedule, images, labels
        self.step, self._augment = 0, augment
        self.terms: Terms | None = None
        self._base = copy.deepcopy(objectives[0]).train()
        parameters, buffers = stack_module_state([copy.deepcopy(objective).train() for objective in objectives])
        self._parameters = {name: parameters[name] for name in _trained(self._base)}
        self._fixed = {name: (parameters | buffers)[name] for name in _fixed(self._base) if name.startswith("network.")}
        self._descent = Descent(schedule, self._parameters, scale_names(self._base))
        self._random = _fresh_random_state(seed, images.device)

    @property
    def layers(self) -> list[str]:
        """Names of the Bayesian layers."""
        return self._base.layers

    def run(self, steps: int | None = None, progress: Callable[..., Any] = lambda *_: None) -> Terms:
        """Continues the training.

        Args:
            steps: Maximum number of steps; by default those that are left in the schedule.
            progress: Called after each step with 1 and, every 10 steps, a line about the parts of the bound.

        Returns:
            The parts of the bound in the last step.

        Raises:
            ValueError: A loss is infinite or NaN, or there is no step left.
        """
        last = self.schedule.steps if steps is None else min(self.step + steps, self.schedule.steps)
        if self.step >= last:
            raise ValueError(f"all {self.schedule.steps} steps of the schedule are done, or steps={steps} is below 1")
        with self._own_random_state():
            while self.step < last:
                self.terms = self._take_step()
                progress(1, *([self._note(self.terms)] if self.step % 10 == 0 else []))
        terms = cast(Terms, self.terms)
        self._descent.check_finite(self.step, *terms)
        return terms

    def trained(self) -> list[Objective]:
        """Returns copies of the objectives with the current parameters of networks and reverse models."""
        found: list[Objective] = []
        for i in range(len(self.images)):
            objective = copy.deepcopy(self._base)
            state = {**dict(objective.named_parameters()), **dict(objective.named_buffers())}
            with torch.no_grad():
                for name, value in {**self._parameters, **self._fixed}.items():
                    state[name].copy_(value[i])
            found.append(objective.eval())
        return found

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that :meth:`run` depends on in addition to the arguments of the trainer."""
        return {
            "step": self.step,
            "terms": None if self.terms is None else tuple(self.terms),
            "parameters": {name: value.detach().clone() for name, value in self._parameters.items()},
            "fixed": {name: value.clone() for name, value in self._fixed.items()},
            "optimizer": copy.deepcopy(self._descent.optimizer.state_dict()),
            "random": dict(self._random),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state; ``ValueError`` if it is of other networks or of another kind of device."""
        ours, theirs = {**self._parameters, **self._fixed}, {**state["parameters"], **state["fixed"]}
        shapes = [{name: tuple(value.shape) for name, value in part.items()} for part in (ours, theirs)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"the state is of other networks: it holds {shapes[1]}, these have {shapes[0]}")
        if state["random"].keys() != self._random.keys():
            there, here = (" and ".join(part) for part in (state["random"], self._random))
            raise ValueError(
                f"the state is from {there}, this run is on {here}: continue there, or remove it to start again"
            )
        for name, value in ours.items():
            value.copy_(theirs[name])
        self._descent.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.step, self._random = state["step"], dict(state["random"])
        device = self.images.device
        self.terms = None if state["terms"] is None else Terms(*(part.to(device) for part in state["terms"]))

    def _take_step(self) -> Terms:
        images, labels = self._batch()
        if self._augment is not None:
            made = self._augment(images.flatten(0, 1))
            if made.dim() != images.dim() - 1 + self._base.augmented:
                raise ValueError(
                    f"augment made {tuple(made.shape)} of images {tuple(images.shape[1:])}, and the objectives have "
                    f"augmented={self._base.augmented}: give the other, with an axis of copies"
                )
            images = made.reshape(*images.shape[:2], *made.shape[1:])
        nll = vmap(self._nll, randomness="different")(self._parameters, self._fixed, images, labels)
        kl = torch.stack([self._kl(i) for i in range(len(images))])
        self._descent.check_finite(self.step, nll.detach(), kl.detach(), parameters=False)  # before it spoils all
        self._descent.take_step(self.step, nll, kl)
        self.step += 1
        return Terms(nll.detach(), kl.detach())

    def _nll(self, parameters: Tensors, fixed: Tensors, images: Tensor, labels: Tensor) -> Tensor:
        return _call(self._base, "nll", {**parameters, **fixed}, (images, labels, self.labels.shape[1]))

    def _kl(self, i: int) -> Tensor:
        """Returns the divergences of one network, because the code of a prior need not support ``vmap``."""
        return _call(self._base, "kl", {name: value[i] for name, value in {**self._parameters, **self._fixed}.items()})

    def _batch(self) -> tuple[Tensor, Tensor]:
        networks, count = self.labels.shape
        if count <= self.schedule.batch_size:
            return self.images, self.labels
        order = torch.rand(networks, count, device=self.labels.device).argsort(1)[:, : self.schedule.batch_size]
        rows = torch.arange(networks, device=self.labels.device)[:, None]
        return self.images[rows, order], self.labels[rows, order]

    def _note(self, terms: Terms) -> str:
        kl = zip(self.layers, as_list(terms.kl.mean(0)), strict=True)
        return ", ".join([f"nll {terms.nll.mean():.1f}", *(f"KL {name} {value:.0f}" for name, value in kl)])

    @contextmanager
    def _own_random_state(self) -> Generator[None, None, None]:
        device = self.images.device
        fork: Callable[[list[torch.device]], AbstractContextManager[None]] = cast(Any, torch.random).fork_rng
        with fork([device] if device.type == "cuda" else []):
            _set_random_state(self._random, device)
            try:
                yield
            finally:
                self._random = _random_state(device)


class _Method(nn.Module):
    """A method of an objective, as a module."""

    def __init__(self, objective: Objective, name: str) -> None:
        super().__init__()
        self.objective, self.name = objective, name

    def forward(self, *arguments: Any) -> Any:
        return getattr(self.objective, self.name)(*arguments)


def _call(objective: Objective, name: str, state: Tensors, arguments: tuple[Any, ...] = ()) -> Tensor:
    """Calls a method of an objective with other parameters."""
    state = {f"objective.{key}": value for key, value in state.items()}
    found: Tensor = functional_call(_Method(objective, name), state, arguments)
    return found


def _trained(objective: Objective) -> list[str]:
    return [name for name, value in objective.named_parameters() if value.requires_grad]


def _fixed(objective: Objective) -> list[str]:
    frozen = [name for name, value in objective.named_parameters() if not value.requires_grad]
    return frozen + [name for name, _ in objective.named_buffers()]


def _tensor(objective: Objective, name: str) -> Tensor:
    module, _, leaf = name.rpartition(".")
    value: Tensor = getattr(objective.get_submodule(module), leaf)
    return value.detach()


def _forms(objective: Objective) -> dict[str, str]:
    """Returns the class and the settings of every module by name: what is in no parameter and no buffer."""
    found: dict[str, str] = {}
    for name, module in cast(Iterator[tuple[str, nn.Module]], objective.named_modules()):  # torch does not annotate it
        found[name or "the objective"] = f"{type(module).__qualname__}({module.extra_repr()})"
    return found


def _check_alike(objectives: Sequence[Objective]) -> None:
    """Raises ``ValueError`` unless objectives share everything that a trainer takes from the first."""
    first = objectives[0]
    for i, other in enumerate(objectives[1:], start=1):
        forms, others = (_forms(each) for each in (first, other))
        for name in dict.fromkeys([*forms, *others]):
            here, there = (each.get(name, "missing") for each in (forms, others))
            if here != there:
                raise ValueError(
                    f"networks trained in one pass must be alike: {name} is {here} in number 0, and {there} in number "
                    f"{i}; make it the same, or train them one by one"
                )
        if _trained(first) != _trained(other) or _fixed(first) != _fixed(other):
            raise ValueError(
                f"networks trained in one pass must train the same parameters; number {i} has others than 0"
            )
        for name in _fixed(first):
            ours, theirs = _tensor(first, name), _tensor(other, name)
            if name.startswith("terms.") and not torch.equal(ours, theirs):
                raise ValueError(
                    f"networks trained in one pass must have the same priors; {name} of number {i} differs"
                )


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def _fresh_random_state(seed: int, device: torch.device) -> dict[str, Tensor]:
    devices = {"cpu": "cpu"} | ({"cuda": device} if device.type == "cuda" else {})
    return {kind: torch.Generator(place).manual_seed(seed).get_state() for kind, place in devices.items()}
