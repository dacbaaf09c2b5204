"""``apply_``: choose the layers, draw their kernels, write all of them or none."""

from pathlib import Path

import torch
from torch import Tensor, nn

from dwp_init.access import Access
from dwp_init.callers import warn_if_by_module
from dwp_init.choice import choose
from dwp_init.draw import Options, at_hand, check_effect, draw_weight, explained, finite, weight_without_draws
from dwp_init.draw import Scale as Scale
from dwp_init.options import check_flags, check_instance
from dwp_init.plan import Choice
from dwp_init.priors import Prior
from dwp_init.priors.precision import full_precision
from dwp_init.ranks import Ranks
from dwp_init.refusals import check_plan
from dwp_init.report import Drawn, Report
from dwp_init.response import Strength
from dwp_init.rules import PriorsByPattern, load_rules
from dwp_init.scales import notes_on, notes_on_draws
from dwp_init.selection import Layers, reusable
from dwp_init.undo import Undo
from dwp_init.virtual import plan_without_values
from dwp_init.weights import Weight


def apply_(
    model: nn.Module,
    prior: PriorsByPattern,
    *,
    layers: Layers | None = None,
    scale: Scale = "auto",
    noise: bool = True,
    orthogonal: bool | None = None,
    resize: bool = False,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    strict: bool = False,
    dry_run: bool = False,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    endpoint: str | None = None,
) -> Report:
    """Draws the weights of a model's convolutions from learned priors, in place.

    Each kernel of a convolution is drawn independently (Eq. 5), whatever the stride, padding, dilation and groups of
    the layer. Layers of 1 to 3 axes, transposed ones, and modules with the weight and the attributes of a convolution
    are drawn; a layer of 1×k or k×1 kernels takes the middle row or column of draws of k×k kernels, and one of 1×k×k,
    k×1×k or k×k×1 kernels takes k×k ones. Kernels are drawn on the device of the weight in float32 and then cast to
    the dtype of the weight. Biases and all other parameters do not change. If anything fails, no weight has changed.

    By default each layer keeps its response, so activations stay about as large as the author of the model left them.
    The response is the root mean square of the weight times its gain: how much stronger outputs are than those of
    white noise kernels, for inputs whose neighbouring values and channels are alike (see :mod:`dwp_init.response`).
    Some weights stay as they are, because their author set them up: weights that are frozen, that are all zero, or in
    all of an output, an input, a kernel or a tap, of which most kernels are copies of others or filters made by hand,
    or most outputs one of the inputs and a little noise, whose memory a module that is no convolution has too, or that
    the layer rescales. Such a layer is drawn only if ``layers`` contains its exact name. A note in the report names the
    layers that stay and had the values of one that is drawn, such as those of a momentum encoder or a target network.

    A layer rescales its weight if the weight with which it convolves has the same norm when the stored one is twice as
    large, as under ``spectral_norm`` and other parametrizations, or in a forward pass with weight standardisation.
    Smooth kernels of that norm have a larger response than the author's, and no draw can change it. To find out, a copy
    of a layer with a forward pass of its own runs up to the first convolution, without hooks; a forward pass that takes
    more than one input is not looked at.

    A set may leave kinds of layers, with the reason in the report: dense layers keep their own kernels with
    ``"natural"``. In plain chains, which have no residual connections (see :class:`dwp_init.PriorSet`), such sets may
    change their scale and let their first output channels pass the inputs on. The report calls their prior ``own
    weights``, or ``identity`` in a layer with as many outputs as inputs. Where nothing normalises, such sets change the
    scale of layers that no prior fits too, 1×1 ones among them.

    Not all draws are independent: the filters of a whitened stem are drawn together. A whitened stem assumes images of
    mean 0 whose neighbouring pixels are alike: on noise its outputs may be several times as large as before. A second
    call with the same arguments draws what a first one would, so that the same seed gives the same weights, up to
    rounding.

    Some priors, such as :class:`dwp_init.MixtureByDepth`, depend on the depth of a layer: its position among the
    model's convolutions with kernels larger than 1×1, in the order of its modules, from 0 to 1. The stem is the
    first; other layers that read images, as in a second encoder, have the depth 0 too.

    If a weight is computed from other tensors, these tensors are written. With ``weight_norm`` the weight is then
    exactly the draw. If a layer under ``spectral_norm`` is named in ``layers``, its draw is rescaled, and the report
    shows the resulting scale. The singular vectors are written too, so that the norm is 1 at once.

    Where ``torch.nn.init`` does nothing, the report has no draw and no prior is loaded: on the meta device, for
    FakeTensors, and for what transformers has just loaded. ``torch.autocast`` has no effect. The processes of a model
    after ``fully_shard``, or under ``DistributedDataParallel``, must all call this function. They draw the weights that
    one process would draw with that seed; without one, the first process draws a seed for all. If one fails, all do,
    and so they do if they have different seeds or would draw different layers.
    What ``to_empty`` leaves has no scale to keep, and may be all zero: initialise such a model as usual first.

    Patterns of layer names are shell patterns as in ``fnmatch``, case-sensitive; ``*`` also matches dots. A single
    layer can be passed as the model; its name is ``""``.

    Args:
        model: The model. Its mode, its ``Parameter`` objects, their ``requires_grad`` and their memory format stay the
            same.
        prior: A prior: its name, its folder, its repository on the Hugging Face Hub (``user/name@revision``) or the
            object. Or a set of priors by kind of layer: its name (``"natural"``) or a :class:`dwp_init.PriorSet`. Or
            several of those, of which each layer takes the first one of its kernel size; one of depthwise kernels is
            for depthwise layers alone. Or a mapping from patterns of layer names (``"stem.*"``) to any of these, of
            which the first pattern that matches counts, also if none of its priors fits, and whose priors may be of
            other kinds of layers.
        layers: The layers to draw: a pattern of their names, several patterns, or a predicate of name and module. All
            layers by default.
        scale: ``"keep"`` gives the draw of each layer the response of the weight that is there; if that is not finite,
            or if it is zero in a layer that is named, the same as ``"fan_in"``. ``"fan_in"`` gives it the response of
            He et al. (2015), √(2 / fan_in), where the fan-in of a transposed convolution is divided by the product of
            its strides. ``"auto"`` is ``"keep"``, with three exceptions. It leaves the kernels that a set keeps, such
            as the dense ones of ``"natural"``, which any other scale draws. In plain chains layers pass their inputs on
            if their set says so. And layers that are drawn or kept, with 64 or more weights of PyTorch's default
            distribution, take He's response in a plain chain: all convolutions are then in one ``nn.Sequential`` of
            PyTorch's modules, or in a module whose own ``forward`` calls them one after the other, without
            normalisation or hooks, a ReLU or the like follows the layer, and no module around the chain may add its
            outputs to its inputs, because it calls the chain as one, and gets more channels than it gives, at a lower
            resolution. What is outside of the model is not seen: a chain that is the whole model
            keeps its scale too if it returns as many channels as it takes, at the same resolution. ``"prior"`` keeps
            the scale of the kernels that the prior was fitted to. Where these were brought to a root mean square of 1,
            as those of depthwise layers and of other public checkpoints, that is not the scale of their networks.
        noise: ``False`` leaves out the last step of a draw: from a VAE the decoder mean is drawn, as the paper's
            authors did, and from a kernel density the learned kernels themselves. It is an error if no prior has such a
            step. In ``training/results/converge_mnist.csv``, draws of a dense VAE without noise have 0.4 to 0.5 points
            of accuracy more than noisy ones after 50 and 80 of 200 steps, and 0.2 or less at the other four marks.
        orthogonal: Whether to make the output channels of each group orthogonal, before scaling. The mean of each
            output channel's weights is subtracted, and the matrix ``(out, in · k · k)`` is replaced by the nearest one
            with orthonormal rows. With independent draws (Eq. 5) the channels of a deep network become more and more
            alike; this prevents it. Kernels change little in a layer with many inputs. The more outputs there are for
            each input, as in wide stems, the rougher they become, up to white noise. With one input channel per group,
            as in depthwise layers, kernels without their means are scaled to the same norm instead. If an output
            channel has at most as many weights as there are output channels, only the means are subtracted. More than
            64 output channels are made orthogonal 64 at a time, each of up to 1,024 also to those before, and only in
            the strongest components of the kernels, so that the cost grows with the number of weights. ``None`` takes
            the default of the set of priors, which is ``True`` for the dense layers of ``"natural"``, and ``False``
            without a set. Whitened stems stay as they are drawn, and so do channels that pass their inputs on; it is an
            error if all layers are whitened stems.
        resize: Whether a layer whose kernel size no prior has takes the prior of the nearest size. The draws are
            resampled linearly along each axis. Sets may leave some kinds where that would make kernels smaller, as
            ``"natural"`` does with depthwise layers.
        seed: Makes the draw of each layer a function of the seed and of the layer: its name, its shape and its depth.
            With ``scale="auto"`` and ``"keep"`` the result depends on the old weights too: on their scale, and on
            kernels that a set keeps.
            Give blocks that are drawn one by one different seeds, because layers of one name and shape are drawn alike.
            The global random state does not change. Wrappers such as ``torch.compile`` and ``DistributedDataParallel``
            do not change names. Other types of devices give other draws.
        generator: Source of randomness on the device of the weights, as in ``torch.nn.init``. If several processes hold
            the model, it draws the seed that they share.
        strict: Whether it is an error if no prior fits one of the chosen convolutions with kernels larger than 1×1, or
            if no layer takes one of the priors. For a set, one prior that is taken is enough. Layers that stay because
            their author set them up, or their set leaves them, are no error, nor are those of which the scale changes.
        dry_run: Whether to make the report only, without drawing anything.
        revision: Revision of the prior, if only one is given and by its name. For several, write
            ``user/name@revision``.
        cache_dir: As in :func:`dwp_init.load_prior`.
        token: As in :func:`dwp_init.load_prior`.
        local_files_only: As in :func:`dwp_init.load_prior`.
        endpoint: As in :func:`dwp_init.load_prior`.

    Returns:
        A report of the layers drawn and of the layers skipped, each with the reason.

    Raises:
        TypeError: ``model`` is not a module, or another argument has a wrong type.
        ValueError: No layer is left to draw, a pattern matches no layer, a prior is unknown or corrupt, a value is
            wrong or has no effect, or the scale of a draw is not finite.
        RuntimeError: A layer could not be drawn or written; the model has not changed.
        FileNotFoundError: The folder of a prior lacks one of its files.
        PriorError: A prior could not be loaded from the Hub; :func:`dwp_init.load_prior` lists the subclasses.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(1, 32, 7), nn.ReLU(), nn.Conv2d(32, 64, 5))
        >>> report = dwp_init.apply_(model, ["notmnist-7x7", "notmnist-5x5"], seed=0)
        >>> report.initialized
        ['0', '2']

    Reference: Atanov et al., The Deep Weight Prior, ICLR 2019.
    """
    check_instance("model", model, nn.Module, "torch.nn.Module")
    warn_if_by_module(model)
    check_flags(resize=resize, strict=strict, dry_run=dry_run)
    ranks = Ranks(model, alone=dry_run)
    options = Options(scale, noise, orthogonal, *ranks.source(seed, generator))
    access = Access(
        revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only, endpoint=endpoint
    )
    plan, notes = plan_without_values(model, layers := reusable(layers)), list[str]()
    if plan is None:
        with ranks.together():
            rules = load_rules(prior, access)
        with ranks.together():
            plan = choose(model, rules, layers, resize, scale)
            check_plan(plan, rules, strict)
            check_effect(plan.choices, options, len(plan.kept))
            notes = notes_on(model, plan, options)
        ranks.check_alike("the layers to draw", [layer.name for layer in plan.layers])
    with full_precision(), Undo() as undo:
        drawn = _drawn(plan.choices, options, ranks, None if dry_run else undo)
        return Report(drawn, plan.reasons, plan.unused, dry_run, plan.spatial, notes + notes_on_draws(drawn, options))


def _drawn(choices: list[Choice], options: Options, ranks: Ranks, undo: Undo | None) -> list[Drawn]:
    """Draws and writes layer by layer, and returns what was done; without ``undo``, returns what would be done."""
    priors: dict[tuple[Prior, torch.device], Prior] = {}
    rows: list[Drawn] = []
    for choice in choices:
        layer, after = choice.layer, None
        with ranks.together():
            before = layer.measure(layer.weight.read())
            if undo is not None:
                after = _draw_one(choice, priors, options, before, undo)
        rows.append(
            Drawn(
                layer=layer.name,
                kind=layer.description,
                prior=choice.prior_text,
                depth=layer.depth,
                weights=layer.shape.numel(),
                rms_before=before.rms,
                rms_after=after and after.rms,
                gain_before=before.gain,
                gain_after=after and after.gain,
            )
        )
    return rows


def _draw_one(
    choice: Choice, priors: dict[tuple[Prior, torch.device], Prior], options: Options, before: Strength, undo: Undo
) -> Strength:
    """Draws and writes the weight of a layer, and returns its strength.

    Args:
        choice: The layer.
        priors: Priors that are ready to draw, by themselves and device; those that are made are added.
        options: How to draw.
        before: Strength of the weight that is there.
        undo: What keeps the old values.
    """
    layer = choice.layer
    if choice.unchanged:
        return before
    with explained(layer, "drawn", keep=ValueError):
        value, after = _value_of(choice, priors, options, before)
        values = layer.weight.values_for(value)
    with explained(layer, "written"):
        undo.keep(layer.weight, layer.label)
        layer.weight.write(values)
    if type(layer.weight) is not Weight or layer.weight.dtype != torch.float32:  # it may not be as drawn
        with explained(layer, "written"):
            after = finite(layer.measure(layer.weight.read()))
    return after


def _value_of(
    choice: Choice, priors: dict[tuple[Prior, torch.device], Prior], options: Options, before: Strength
) -> tuple[Tensor, Strength]:
    """Returns the new weight of a layer, and its strength; see :func:`_draw_one` for the arguments."""
    layer = choice.layer
    if not choice.draws:
        return weight_without_draws(choice, before)
    prior = choice.rule.prior_for(layer, layer.depth)
    here = (prior, layer.weight.device)
    if here not in priors:
        priors[here] = at_hand(prior, layer.weight.device)
    return draw_weight(choice, priors[here], options, before)
