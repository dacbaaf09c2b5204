import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dwp_init import GaussianMixture, KernelVAE
from dwp_init.bayes import (
    KL,
    AuxiliaryKL,
    BayesConv2d,
    GaussianKL,
    MonteCarloKL,
    NormalKL,
    Objective,
    RelativeBayesConv2d,
    ScaledKL,
    Schedule,
    SemiImplicitKL,
    Trainer,
    bayesianize_,
    kl_from,
)
from tests.bayes.small import gaussian, images, network, objective, vae


def trainer(objectives: list[Objective], schedule: Schedule, seed: int = 0, n: int = 12) -> Trainer:
    return Trainer(objectives, *images(len(objectives), n), schedule, seed)


FAMILIES: dict[str, Callable[[int], KL]] = {
    "gaussian": lambda k: kl_from(gaussian(k)),
    "mixture": lambda k: kl_from(GaussianMixture((1, k, k), 2)),
    "vae": lambda k: kl_from(vae(k)),
    "paper's networks": lambda k: kl_from(vae(k, network="paper")),
}


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_training_raises_the_bound(name: str, networks: int) -> None:
    sizes = (5, 7) if name.startswith("paper") else (3, 5)
    made = []
    for seed in range(networks):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(1, 2, sizes[0], padding=2), nn.Conv2d(2, 2, sizes[1]), nn.Flatten())
        model.append(nn.LazyLinear(2))(torch.zeros(1, 1, 8, 8))
        bayesianize_(model)
        made.append(Objective(model, [FAMILIES[name](k) for k in sizes], kernels=3))
    run = trainer(made, Schedule(60, 6, 1e-2))
    before = run.run(1)
    after = run.run()
    assert run.step == 60 and after.nll.shape == (networks,) and after.kl.shape == (networks, 2)
    assert (after.kl.sum(1) < before.kl.sum(1)).all()


def test_only_free_parameters_change() -> None:
    terms = [kl_from(vae(3)), kl_from(vae(5), train_reverse=False)]
    start = objective(terms)
    (end,) = (run := trainer([start], Schedule(3, 6))).trained()
    run.run()
    (end,) = run.trained()
    moved = {
        name
        for (name, a), b in zip(start.state_dict().items(), end.state_dict().values(), strict=True)
        if not torch.equal(a, b)
    }
    first, second = (f"terms.{i}.prior" for i in (0, 1))
    assert all(f"network.{name}" in moved for name in ("0.weight", "0.log_variance", "0.bias", "5.weight"))
    assert any(name.startswith(f"{first}.encoder") for name in moved)
    assert not any(name.startswith((f"{first}.decoder", f"{first}.whitening", second)) for name in moved)


def test_networks_of_one_pass_train_as_alone() -> None:
    """Without noise to tell them apart, two networks in one pass are the two trained alone; each has its own data."""
    schedule = Schedule(20, 12, 1e-2)
    pair = [objective(NormalKL(0.3), seed=seed) for seed in (0, 1)]
    for model in pair:
        for layer in (model.network[0], model.network[3]):
            layer.log_variance.data.fill_(-60)
            layer.log_variance.requires_grad_(False)
    pictures, labels = images(2)
    together = Trainer(pair, pictures, labels, schedule)
    together.run()
    for i, model in enumerate(together.trained()):
        alone = Trainer([pair[i]], pictures[i : i + 1], labels[i : i + 1], schedule)
        alone.run()
        for ours, theirs in zip(model.parameters(), alone.trained()[0].parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_batch_norm_keeps_its_statistics_by_network() -> None:
    run = trainer([objective(NormalKL(), norm=True, seed=seed) for seed in (0, 1)], Schedule(5, 6))
    run.run()
    first, second = (model.network[1] for model in run.trained())
    assert first.num_batches_tracked == 5 and not torch.equal(first.running_mean, second.running_mean)


def test_deterministic_networks_train_too() -> None:
    run = trainer([Objective(network(bayesian=False))], Schedule(80, 12, 1e-2))
    before = run.run(1).nll
    terms = run.run()
    assert (terms.nll < 0.5 * before).all() and terms.kl.shape == (1, 0)


@pytest.mark.parametrize("stop", [1, 7, 19])
def test_a_resumed_run_is_exact(stop: int) -> None:
    def fresh() -> Trainer:
        models = [objective([kl_from(vae(3)), kl_from(vae(5))], kernels=2, seed=seed, norm=True) for seed in (0, 1)]
        return trainer(models, Schedule(20, 5, 1e-2, 3e-2, warm_up=4), seed=3)

    whole, first, second = fresh(), fresh(), fresh()
    whole.run()
    first.run(stop)
    state = copy.deepcopy(first.state_dict())
    torch.rand(3)  # the global random state counts for nothing
    second.load_state_dict(state)
    second.run()
    assert second.step == 20 and all(map(torch.equal, whole.terms, second.terms))
    for ours, theirs in zip(whole.trained(), second.trained(), strict=True):
        assert all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))


@pytest.mark.parametrize("copies", [None, 3])
def test_augmented_runs_resume_exactly_and_every_step_has_its_own_copies(copies: int | None) -> None:
    seen: list[Tensor] = []

    def augment(pictures: Tensor) -> Tensor:
        shape = (len(pictures), *([copies] if copies else []), 1, 1, 1)
        seen.append((pictures if copies is None else pictures[:, None]) + 0.1 * torch.randn(shape))
        return seen[-1]

    def fresh() -> Trainer:
        models = [Objective(network(seed), NormalKL(), augmented=copies is not None) for seed in (0, 1)]
        return Trainer(models, *images(2), Schedule(6, 5), 3, augment)

    whole, first, second = fresh(), fresh(), fresh()
    whole.run()
    assert seen[0].shape[0] == 10 and not torch.equal(seen[0], seen[1])
    first.run(2)
    second.load_state_dict(first.state_dict())
    second.run()
    assert all(map(torch.equal, whole.terms, second.terms))


def test_the_global_random_state_stays_and_does_not_count() -> None:
    runs = [trainer([objective(NormalKL(), kernels=2)], Schedule(2, 6)) for _ in range(2)]
    for seed, run in enumerate(runs):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        run.run()
        assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, runs[0].terms, runs[1].terms))


def test_a_state_is_a_copy() -> None:
    run, other = (trainer([objective(NormalKL(), norm=True)], Schedule(9, 6)) for _ in range(2))
    run.run(3)
    state = run.state_dict()
    kept = copy.deepcopy(state)
    run.run()
    other.load_state_dict(state)
    other.run()
    assert all(map(torch.equal, run.terms, other.terms))
    for part in ("parameters", "fixed"):
        assert all(torch.equal(value, kept[part][name]) for name, value in state[part].items())
    assert state["step"] == 3 and torch.equal(state["random"]["cpu"], kept["random"]["cpu"])
    moments = [next(iter(each["optimizer"]["state"].values()))["exp_avg"] for each in (state, kept)]
    assert torch.equal(*moments)


def test_terms_of_a_finished_run_are_in_its_state() -> None:
    run, other = (trainer([objective(NormalKL())], Schedule(2, 6)) for _ in range(2))
    run.run()
    other.load_state_dict(run.state_dict())
    assert other.step == 2 and all(map(torch.equal, run.terms, other.terms))


def test_frozen_weights_stay_each_networks_own() -> None:
    pair = [objective(NormalKL(), seed=seed) for seed in (0, 1)]
    for model in pair:
        model.network[5].weight.requires_grad_(False)
    run = trainer(pair, Schedule(2, 6))
    run.run()
    for before, after in zip(pair, run.trained(), strict=True):
        assert torch.equal(before.network[5].weight, after.network[5].weight)
        assert not torch.equal(before.network[5].bias, after.network[5].bias)


def test_a_divergence_is_that_of_each_networks_own_frozen_means() -> None:
    pair = [objective(NormalKL(), seed=seed) for seed in (0, 1)]
    for model in pair:
        model.network[3].weight.requires_grad_(False).mul_(5)
    terms = trainer(pair, Schedule(2, 6)).run(1)
    torch.testing.assert_close(terms.kl, torch.stack([model.kl() for model in pair]).detach())
    assert not terms.kl[0].allclose(terms.kl[1], rtol=1e-3)


def test_a_learned_scale_of_each_network() -> None:
    run = trainer([objective(NormalKL(0.1 + seed, learn=True), seed=seed) for seed in (0, 1)], Schedule(2, 6))
    assert run.run().kl.shape == (2, 2)


def test_networks_that_are_not_alike() -> None:
    frozen = objective(NormalKL())
    frozen.network[0].bias.requires_grad_(False)
    relative = network(bayesian=False)
    bayesianize_(relative, kind=RelativeBayesConv2d)
    for other, message in {
        objective(NormalKL(), kernels=2): r"the objective is Objective\(kernels=None, .* 0, .*kernels=2, .* 1; make",
        Objective(relative, NormalKL()): r"network.0 is BayesConv2d\(1.* in number 0, and RelativeBayesConv2d",
        objective(NormalKL(0.5)): "must have the same priors; terms.0.log_scale of .* differ",
        Objective(network(bayesian=False)): r"layers=\['0', '3'\]\) in number 0, .*layers=\[\]\) in number 1",
        Objective(network(), NormalKL(), augmented=True): "augmented=False.*augmented=True",
        frozen: "must train the same parameters",
    }.items():
        with pytest.raises(ValueError, match=message):
            trainer([objective(NormalKL()), other], Schedule(2, 6))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (ScaledKL(NormalKL(), 1.0), ScaledKL(NormalKL(), 2.0), "terms.0.scale of number 1 differs"),
        (NormalKL(), ScaledKL(NormalKL(), 1.0), r"terms.0 is NormalKL\(.* in number 0, and ScaledKL"),
        (MonteCarloKL(gaussian(3)), MonteCarloKL(gaussian(3), 2), r"samples=1\) in number 0, .*samples=2\)"),
        (MonteCarloKL(gaussian(3)), GaussianKL(gaussian(3)), "terms.0 is MonteCarloKL.*, and GaussianKL"),
        (SemiImplicitKL(vae(3), 2), SemiImplicitKL(vae(3), 3), "draws=2, .*, and .*draws=3"),
        (SemiImplicitKL(vae(3), 2), SemiImplicitKL(vae(3), 2, "prior"), "'encoder'.*, and .*'prior'"),
    ],
)  # fmt: skip
def test_terms_that_are_not_alike(first: KL, second: KL, message: str) -> None:
    rest = NormalKL(kernel_shape=(1, 5, 5))
    made = [Objective(network(), {"0": term, "3": rest}) for term in (first, second)]
    with pytest.raises(ValueError, match=f"networks trained in one pass .*{message}"):
        trainer(made, Schedule(2, 6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    """Whatever the prior's own is."""
    model = Objective(network().to(dtype), [GaussianKL(gaussian(3)), kl_from(vae(5))])
    pictures, labels = images()
    run = Trainer([model], pictures.to(dtype), labels, Schedule(3, 6))
    assert run.run().kl.dtype == run.run.__self__.terms.nll.dtype == dtype


def test_a_state_from_another_kind_of_device() -> None:
    run = trainer([objective(NormalKL())], Schedule(2, 6))
    state = run.state_dict()
    state["random"]["cuda"] = state["random"]["cpu"]
    with pytest.raises(ValueError, match="the state is from cpu and cuda, this run is on cpu: continue there, or"):
        run.load_state_dict(state)


def test_parameters_that_became_nan_are_an_error() -> None:
    """In the last step too, whose loss was still finite."""
    run = trainer([objective(NormalKL())], Schedule(1, 6))
    run._parameters["network.5.bias"].register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(ValueError, match="network 0 diverged by step 1"):
        run.run()


def test_training_the_reverse_model_never_ends_with_a_worse_bound() -> None:
    """Same seeds, same priors: with ψ fixed the bound can only be reached by moving the posterior."""
    for seed in range(3):
        ends = {}
        for train in (True, False):
            terms = [kl_from(vae(k), train_reverse=train) for k in (3, 5)]
            run = trainer([objective(terms, seed=seed)], Schedule(300, 12, 1e-2), seed=seed)
            run.run()
            (model,) = run.trained()
            torch.manual_seed(0)
            pictures, labels = (part[0] for part in images())
            with torch.no_grad():
                draws = [model.train()(pictures, labels, len(labels)) for _ in range(200)]
            ends[train] = torch.stack([terms.nll + terms.kl.sum() for terms in draws])
        difference = ends[True] - ends[False]
        assert difference.mean() < 2 * difference.std() / math.sqrt(200)


def test_schedule() -> None:
    assert [Schedule(10, warm_up=3, temperature=0.5).kl_weight(step) for step in (0, 1, 3, 9)] == [
        0.125,
        0.25,
        0.5,
        0.5,
    ]
    assert Schedule(10).kl_weight(0) == 1
    run = trainer([objective(NormalKL())], Schedule(4, 6, lr=0.8, scale_lr=0.4))
    rates = []
    for _ in range(4):
        run.run(1)
        rates.append([group["lr"] for group in run._descent.optimizer.param_groups])
    assert torch.tensor(rates).T.allclose(torch.tensor([[0.8, 0.6, 0.4, 0.2], [0.4, 0.3, 0.2, 0.1]]))


def test_minibatches_are_drawn_without_replacement() -> None:
    run = trainer([objective(NormalKL()) for _ in range(2)], Schedule(1, 7))
    run.images = torch.arange(12.0).expand(2, -1)[..., None, None, None]
    pictures, labels = run._batch()
    places = pictures.flatten(1)
    assert all(len(row.unique()) == 7 for row in places) and not torch.equal(*places)
    assert torch.equal(labels, run.labels[0][places.long()])


def test_progress_says_what_the_bound_is_made_of() -> None:
    said: list[tuple[object, ...]] = []
    trainer([objective(NormalKL())], Schedule(20, 6)).run(progress=lambda *words: said.append(words))
    assert [words[0] for words in said] == [1] * 20 and [len(words) for words in said] == ([1] * 9 + [2]) * 2
    assert said[9][1].startswith("nll ") and "KL 0 " in said[9][1] and "KL 3 " in said[9][1]


def test_helpful_errors() -> None:
    model = objective(NormalKL())
    with pytest.raises(ValueError, match=r"for 2 networks, 1 or more; got \(1, 12, 1, 8, 8\) and \(1, 12\)"):
        Trainer([model, model], *images(1), Schedule())
    run = trainer([model], Schedule(1, 6))
    run.run()
    with pytest.raises(ValueError, match="all 1 steps of the schedule are done"):
        run.run()
    with pytest.raises(ValueError, match="the state is of other networks"):
        trainer([objective(NormalKL(), channels=2)], Schedule(1)).load_state_dict(run.state_dict())
    with pytest.raises(ValueError, match=r"network 0 diverged by step [1-9]: .*lower lr=1000.0"):
        trainer([objective(NormalKL())], Schedule(40, 6, lr=1e3, scale_lr=1e5)).run()
    pictures, labels = images(1)
    with pytest.raises(ValueError, match="labels are class numbers from 0 on; got -100"):
        Trainer([model], pictures, labels - 100, Schedule())
    for wrong in (
        {"steps": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"temperature": 0.0},
        {"warm_up": -1},
        {"scale_lr": -1.0},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Schedule(**wrong)


def test_layers_in_training_mode_draw_and_reverse_models_do_not_drop() -> None:
    prior = KernelVAE((1, 3, 3), latent_dim=2, hidden=8, dropout=0.5)
    bayes_net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2))
    bayesianize_(bayes_net)
    run = trainer([Objective(bayes_net.eval(), AuxiliaryKL(prior))], Schedule(1, 6))
    assert run._base.network.training and isinstance(run._base.network[0], BayesConv2d)
    (term,) = run._base.terms.train()
    assert not any(module.training for module in term.prior.modules())
