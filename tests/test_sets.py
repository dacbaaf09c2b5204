"""Sets of priors: which kind of layer takes which prior."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dwp_init import SETS, PriorSet, apply_, load_prior
from dwp_init.bayes import layer_priors
from dwp_init.init import kernels_
from dwp_init.registry import registry
from tests.chains import EVERYWHERE, Residual
from tests.models import Fit, named


@pytest.fixture
def prior_set(gaussian: Fit) -> PriorSet:
    return PriorSet(
        stem=(named(gaussian(3, 3), "stem"),),
        dense=(named(gaussian(3), "dense"), named(gaussian(5), "dense-5")),
        depthwise=(named(gaussian(3), "depthwise"),),
        name="mine",
    )


def network(channels: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3),
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 6, 3),
        nn.Conv2d(6, 6, 3, groups=2),
        nn.Conv2d(6, 6, 5, groups=6),
        nn.ConvTranspose2d(6, 6, 3, groups=6),
        nn.Conv2d(6, 6, (1, 3)),
    )


def test_each_layer_takes_the_prior_of_its_kind_and_size(prior_set: PriorSet) -> None:
    report = apply_(network(), prior_set, seed=0)
    assert {row.layer: row.prior for row in report.drawn} == {
        "0": "stem",
        "2": "depthwise",
        "3": "dense",
        "4": "dense",
        "6": "depthwise",
        "7": "dense, middle row of 3×3",
    }
    assert report.skipped == {
        "1": "no prior given fits 1×1 dense kernels here",
        "5": "no prior given fits 5×5 depthwise kernels here; resize=True would take depthwise",
    }
    assert report.unused == []


@pytest.mark.parametrize(("channels", "expected"), [(1, "dense"), (3, "stem"), (4, "dense"), (6, "dense")])
def test_a_stem_without_a_prior_of_its_channels_takes_a_dense_layers(
    channels: int, expected: str, prior_set: PriorSet
) -> None:
    assert apply_(network(channels), prior_set).drawn[0].prior == expected


def test_a_layer_whose_attributes_are_stale_counts_by_its_weight(prior_set: PriorSet) -> None:
    layer = nn.Conv2d(8, 8, 3, groups=8)
    layer.weight = nn.Parameter(torch.randn(4, 1, 3, 3))  # pruned by hand
    layer.groups = 4
    assert [row.prior for row in apply_(nn.Sequential(nn.Conv2d(3, 4, 3), layer), prior_set).drawn][1] == "depthwise"


def test_a_one_by_one_layer_is_not_a_stem(gaussian: Fit) -> None:
    pointwise = PriorSet(stem=(gaussian(1, 3), gaussian(3, 3)), dense=(named(gaussian(1), "point"),))
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 1))
    assert [row.prior for row in apply_(model, pointwise).drawn][1] == "point"


def test_a_set_says_whether_channels_are_orthogonal_and_the_caller_has_the_last_word(gaussian: Fit) -> None:
    prior, layer = gaussian(3), nn.Conv2d(4, 6, 3)

    def is_orthogonal(by_set: bool, **options: bool) -> bool:
        apply_(layer, PriorSet(dense=(prior,), orthogonal=by_set), seed=0, **options)
        rows = layer.weight.detach().flatten(1)
        gram = rows @ rows.T / rows.square().sum(1).mean()
        return bool((gram - torch.eye(6)).abs().max() < 1e-4)

    assert is_orthogonal(True) and is_orthogonal(False, orthogonal=True)
    assert not is_orthogonal(False) and not is_orthogonal(True, orthogonal=False)


def test_a_set_may_make_the_channels_of_some_kinds_orthogonal(gaussian: Fit) -> None:
    members = {kind: (gaussian(3),) for kind in ("dense", "depthwise")}
    means = {}
    for orthogonal in (("dense",), ("depthwise",), True):
        model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=4))
        apply_(model, PriorSet(**members, orthogonal=orthogonal), seed=0)
        means[orthogonal] = [layer.weight.flatten(1).mean(1).abs().max() < 1e-6 for layer in model]
    assert means == {("dense",): [True, False], ("depthwise",): [False, True], True: [True, True]}
    for wrong in ("dense", ("stems",), 1):
        with pytest.raises(TypeError, match=r"orthogonal must be True, False or a tuple of the kinds .*; got"):
            PriorSet(dense=(gaussian(3),), orthogonal=wrong)


def test_sets_without_names_of_their_own_are_told_apart(gaussian: Fit) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    sets = [PriorSet(dense=(gaussian(3),)), PriorSet(dense=(gaussian(7),))]
    assert apply_(model, sets).unused == ["PriorSet"]
    with pytest.raises(ValueError, match="strict: no layer took 'PriorSet'"):
        apply_(model, sets, strict=True)


def test_the_stem_is_the_first_of_the_model_though_others_are_asked_for(prior_set: PriorSet) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    assert [row.prior for row in apply_(model, prior_set, layers="1").drawn] == ["dense"]


def test_priors_before_a_set_have_precedence_and_priors_after_it_do_not(prior_set: PriorSet, gaussian: Fit) -> None:
    mine = named(gaussian(3), "any")
    assert {row.prior for row in apply_(network()[:-1], [mine, prior_set]).drawn} == {"any"}
    after = apply_(network()[:-1], [prior_set, mine])
    assert {row.prior for row in after.drawn} == {"stem", "dense", "depthwise"} and after.unused == ["any"]
    by_pattern = apply_(network(), {"3": mine, "*": prior_set})
    assert {row.layer: row.prior for row in by_pattern.drawn}["3"] == "any"


def test_a_set_from_which_no_layer_takes_a_prior_is_unused_as_a_whole(prior_set: PriorSet, gaussian: Fit) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 7))
    report = apply_(model, [gaussian(7), prior_set])
    assert report.unused == ["mine"]
    with pytest.raises(ValueError, match="strict: no layer took 'mine'; add a prior"):
        apply_(model, [gaussian(7), prior_set], strict=True)
    dense = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 5))
    assert apply_(dense, prior_set, strict=True).unused == []  # one member that is taken is enough


def test_helpful_errors(prior_set: PriorSet, gaussian: Fit) -> None:
    with pytest.raises(ValueError, match="'dense' and 'Gaussian' are both for 3×3 kernels of dense layers; keep one"):
        apply_(network(), [prior_set, PriorSet(dense=(gaussian(3),))])
    with pytest.raises(TypeError, match="stem must be a tuple of names, folders or priors; got 'notmnist-7x7'"):
        PriorSet(stem="notmnist-7x7")
    with pytest.raises(ValueError, match="at least one prior, for one of the kinds stem, dense, depthwise"):
        PriorSet()
    with pytest.raises(TypeError, match=r"orthogonal must be True, False or a tuple of the kinds stem, .*; got 1"):
        PriorSet(dense=(gaussian(3),), orthogonal=1)
    for name in ("", 5):
        with pytest.raises(TypeError, match=f"name must be a str that is not empty; got {name!r}"):
            PriorSet(dense=(gaussian(3),), name=name)
    with pytest.raises(ValueError, match="'PriorSet' is for 3×3 depthwise kernels; the model has 3×3 stem"):
        apply_(nn.Conv2d(8, 8, 3), PriorSet(depthwise=(gaussian(3),)))
    with pytest.raises(ValueError, match="no prior and no folder is called 'Naturel'; did you mean 'natural'"):
        apply_(network(), "Naturel")
    with pytest.raises(ValueError, match="is for one prior given by name, but it is a set; write user/name@revision"):
        apply_(network(), "natural", revision="v1")
    with pytest.raises(
        ValueError, match="'natural' is a set of priors, not one: a layer takes one of them, such as 'natural-stem'"
    ):
        load_prior("natural")
    message = "'mine' is for 3×3 RGB stem, 3×3, 5×5 dense, 3×3 depthwise kernels; the model has 1×1 dense"
    with pytest.raises(ValueError, match=f"no layer can be initialised: {message}"):
        apply_(nn.Conv2d(3, 4, 1), prior_set)


def test_draws_do_not_depend_on_what_else_the_set_holds(prior_set: PriorSet) -> None:
    models = [network(), network()]
    models[1].load_state_dict(models[0].state_dict())
    apply_(models[0], prior_set, seed=1)
    apply_(models[1], {"2": prior_set.depthwise[0], "*": prior_set}, seed=1)
    assert all(map(torch.equal, models[0].parameters(), models[1].parameters()))


@pytest.mark.parametrize("name", SETS)
def test_a_named_sets_priors_are_for_what_they_are_called(name: str) -> None:
    assert SETS[name].name == name
    for kind, like in SETS[name]:
        assert (load_prior(like).kernel_shape[0] > 1) == (kind == "stem")
        assert ("dw" in like) == (kind == "depthwise") and ("stem" in like) == (kind == "stem")


def test_lists_are_as_good_as_tuples(gaussian: Fit) -> None:
    prior = gaussian(3)
    lists = PriorSet(dense=[prior], orthogonal=["dense"], only_larger=["dense"])
    assert hash(lists) == hash(PriorSet(dense=(prior,), orthogonal=("dense",), only_larger=("dense",)))
    with pytest.raises(TypeError, match=r"only_larger must be a tuple of the kinds stem, .*; got 'dense'"):
        PriorSet(dense=(prior,), only_larger="dense")


def test_natural_enlarges_depthwise_kernels_and_leaves_smaller_layers() -> None:
    sizes = (3, 5, (1, 7), 9)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *(nn.Conv2d(8, 8, size, groups=8) for size in sizes))
    report = apply_(model, "natural", resize=True, dry_run=True)
    assert {row.layer: row.prior for row in report.drawn} == {
        "0": "natural-stem",
        "3": "natural-dw7x7, middle row of 7×7",
        "4": "natural-dw7x7, resized from 7×7",
    }
    left = "'natural' leaves those smaller than its own; prior=[…, 'natural-dw{0}x{0}'] would draw them"
    assert report.skipped == {
        name: f"no prior given fits {k}×{k} depthwise kernels here; {left.format(k)}"
        for name, k in (("1", 3), ("2", 5))
    }
    left = re.escape(left.format(3))
    with pytest.raises(ValueError, match=r"strict: no prior given fits .* depthwise .*; add a prior, narrow layers="):
        apply_(model, "natural", layers=["0", "1", "2"], strict=True)
    with pytest.raises(ValueError, match=rf"; {left}; list_priors\(\) names the priors there are"):
        apply_(model, "natural", layers="1", resize=True)
    with pytest.raises(ValueError, match=f"kernels here; {left}"):
        kernels_(torch.empty(8, 1, 3, 3), "natural", groups=8)
    kernels_(torch.empty(8, 1, 3, 3), ["natural", "natural-dw3x3"], groups=8)


def test_a_prior_of_depthwise_kernels_is_for_depthwise_layers_in_any_order() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 5))
    for priors in (["natural-dw3x3", "natural"], ["natural", "natural-dw3x3"]):
        drawn = apply_(model, priors, scale="keep", dry_run=True).drawn
        assert [row.prior for row in drawn] == ["natural-stem", "natural-dw3x3", "tinyimagenet-5x5"]
    others = r"a mapping from patterns, or PriorSet\(dense=\(…,\)\), gives it to others"
    with pytest.raises(ValueError, match=f"'natural-dw5x5' is for 5×5 depthwise kernels; .*; {others}; prior="):
        apply_(model, "natural-dw5x5", layers="2")
    for asked in ({"2": "natural-dw5x5"}, PriorSet(dense=("natural-dw5x5",))):
        assert [row.prior for row in apply_(model, asked, dry_run=True).drawn] == ["natural-dw5x5"]


@pytest.mark.parametrize(("layer", "name"), [(nn.Conv1d(8, 8, 3), "audio"), (nn.Conv3d(8, 8, 3), "brain-mri")])
def test_an_error_names_the_prior_of_a_layers_size_and_kind(layer: nn.Module, name: str) -> None:
    with pytest.raises(ValueError, match=rf"; prior=\[…, '{name}'\] would draw them; list_priors"):
        apply_(layer, "natural")
    kinds = {name: load_prior(name).details["source"].get("kind") for name in registry()}
    assert {name for name, kind in kinds.items() if kind == "depthwise"} == {name for name in kinds if "-dw" in name}


def test_an_error_says_how_many_channels_a_set_whitens() -> None:
    mine = PriorSet(stem=("natural-stem",), dense=("tinyimagenet-3x3",), name="mine")
    limit = "'mine' gives 'natural-stem' to stems of up to 3 channels, not of 13: give it before the set, in a list"
    with pytest.raises(ValueError, match=limit):
        apply_(nn.Conv2d(13, 8, 7), mine)
    assert apply_(nn.Conv2d(13, 8, 7), ["natural-stem", mine], dry_run=True).drawn[0].prior == "natural-stem"


@pytest.mark.parametrize(("channels", "prior"), [(1, "natural-stem"), (3, "natural-stem"), (4, "tinyimagenet-3x3")])
def test_a_set_whitens_stems_of_images_and_not_those_of_latents(channels: int, prior: str) -> None:
    stem = nn.Conv2d(channels, 64, 3)
    (drawn,) = apply_(stem, "natural", dry_run=True).drawn
    assert drawn.prior == prior
    (drawn,) = apply_(stem, "natural-stem", dry_run=True).drawn  # whoever names it may have any
    assert drawn.prior == "natural-stem"


def residual() -> nn.Sequential:
    """A stem, and a block that adds."""
    block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2))
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Residual(block), nn.Conv2d(8, 8, 1))


def test_natural_leaves_dense_layers() -> None:
    model = residual()
    before = [parameter.clone() for parameter in model[2].parameters()]
    report = apply_(model, "natural", seed=0, strict=True)
    assert report.initialized == ["0"] and all(map(torch.equal, before, model[2].parameters()))
    reason = "'natural' leaves dense layers as they are on purpose; "
    assert report.skipped["2.body.2"] == f"{reason}scale='keep' or an exact name in layers= draws them"
    with pytest.raises(ValueError, match=f"no layer can be initialised: {reason}"):
        apply_(model[2], "natural")


@pytest.mark.parametrize(
    ("prior", "options", "drawn"),
    [
        ("natural", {"layers": ["2.body.2"]}, {"2.body.2": "tinyimagenet-5x5"}),
        ("natural", {"layers": "2.body.*", "scale": "keep"}, {"2.body.0": "3x3", "2.body.2": "5x5"}),
        (["natural", "tinyimagenet-3x3"], {}, {"0": "natural-stem", "2.body.0": "tinyimagenet-3x3"}),
        ({"2.body.0": "tinyimagenet-3x3", "*": "natural"}, {}, {"2.body.0": "tinyimagenet-3x3", "0": "natural-stem"}),
    ],
)
def test_what_draws_them_all_the_same(prior: Any, options: dict[str, Any], drawn: dict[str, str]) -> None:
    rows = apply_(residual(), prior, **options).drawn
    assert {row.layer for row in rows} == drawn.keys() and all(row.prior.endswith(drawn[row.layer]) for row in rows)


def test_a_layer_by_itself_is_drawn_and_in_a_plain_chain_its_scale_changes() -> None:
    assert apply_(nn.Conv2d(8, 8, 3), "natural").drawn[0].prior == "tinyimagenet-3x3"
    chain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 16, 3))
    assert [row.prior for row in apply_(chain, "natural", dry_run=True).drawn] == ["natural-stem", "own weights"]
    assert apply_(chain, EVERYWHERE, dry_run=True).initialized == ["0", "2", "4"]
    assert apply_(chain, ["natural", "tinyimagenet-3x3"], dry_run=True).drawn[-1].prior == "tinyimagenet-3x3"
    for wrap in (lambda layer: nn.Sequential(layer, nn.ReLU()), torch.compile, nn.DataParallel):
        assert len(apply_(wrap(nn.Conv2d(8, 16, 3)), "natural", dry_run=True).drawn) == 1
    assert list(layer_priors(residual(), "natural")) == ["0", "2.body.0", "2.body.2"]


def normed(*others: nn.Module) -> nn.Sequential:
    parts = [
        (nn.Conv2d(*pair, 3, 1 + (pair[0] == 8)), nn.BatchNorm2d(pair[1]), nn.ReLU()) for pair in ((3, 8), (8, 16))
    ]
    return nn.Sequential(*(part for each in parts for part in each), *others)


class Flat(nn.Module):
    """A residual network in the form of ResNet-9: chains that grow, and branches that do not."""

    def __init__(self, shortcut: bool) -> None:
        super().__init__()
        self.first, self.branch, self.shortcut = normed(), nn.Sequential(nn.Conv2d(16, 16, 3, padding=1)), shortcut
        self.branch.append(nn.BatchNorm2d(16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + self.branch(x) if self.shortcut else self.branch(x)


def test_hooks_and_branches_end_a_plain_chain() -> None:
    model = normed(nn.Conv2d(16, 32, 3, 1), nn.BatchNorm2d(32), nn.Conv2d(32, 64, 3))
    assert apply_(model, "natural", dry_run=True).initialized == ["0", "6"]
    model[0].register_forward_hook(lambda *_: None)
    assert apply_(model, "natural", dry_run=True).initialized == ["0"]
    for shortcut in (True, False):
        assert apply_(Flat(shortcut), "natural", dry_run=True).initialized == ["first.0"]


def test_a_set_leaves_stems_too_and_its_other_priors_do_not_take_them() -> None:
    mine = PriorSet(stem=("natural-stem",), dense=("tinyimagenet-3x3",), kept=("stem",), name="mine")
    model = residual()
    for parameter in model[0].parameters():
        nn.init.ones_(parameter[:1])  # whose scale an author chose
    report = apply_(model, mine)
    assert report.initialized == ["2.body.0"] and report.skipped["0"].startswith("'mine' leaves stem layers as they")


def test_what_is_given_besides_a_set_that_leaves_layers() -> None:
    large = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Residual(nn.Conv2d(8, 8, 9, padding=4)))
    reason = "scale='keep', resize=True would take tinyimagenet-7x7, as 'natural' leaves them by default"
    assert apply_(large, "natural").skipped["2.body"] == f"no prior given fits 9×9 dense kernels here; {reason}"
    model, both = residual(), ["natural", "notmnist-7x7"]
    assert apply_(model, both, resize=True, dry_run=True).initialized == ["0"]  # 7×7 kernels are not resized to 3×3
    model[2].body[0].requires_grad_(False)
    nn.init.zeros_(model[2].body[2].weight)
    reasons = apply_(model, "natural", dry_run=True).skipped
    assert "frozen" in reasons["2.body.0"] and "all zero" in reasons["2.body.2"]
    with pytest.raises(
        ValueError, match=r"has no effect: .*; remove it, or give scale='keep', which draws 2 layers that stay"
    ):
        apply_(residual(), "natural", orthogonal=False)
    assert apply_(residual(), ["natural-stem", "natural"], strict=True, dry_run=True).unused == []
    with pytest.raises(ValueError, match="leaves dense layers as they are on purpose"):
        apply_(Residual(nn.Conv2d(8, 8, 3, padding=1)), "natural")
    first = nn.Sequential(nn.Conv2d(13, 8, 3), Residual(nn.Conv2d(8, 8, 3, padding=1)))
    reason = r"on purpose; .*; 'natural' gives 'natural-stem' to stems of up to 3 channels, not of 13"
    with pytest.raises(ValueError, match=reason):
        apply_(first, "natural")
    with pytest.raises(
        ValueError, match=r"no layer can be initialised: 'natural' leaves dense layers .* \(2.body.0, 2"
    ):
        apply_(residual(), {"2.*": "natural"})
