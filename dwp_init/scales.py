"""Which layers keep their scale by default, and which take He's because no author chose theirs."""

from torch import Tensor, nn

from dwp_init.authored import is_untouched
from dwp_init.chain import normalises
from dwp_init.copies import copies_among
from dwp_init.draw import Options
from dwp_init.names import named_modules
from dwp_init.plan import Choice, Plan
from dwp_init.report import Drawn, listed
from dwp_init.tensors import is_virtual

_ROUNDED = 1e-3  # how far a new variance may be from 1, from which some frozen norms take their epsilon
_LOUD = 10  # how many times stronger a layer of networks that were trained is at most than that of a new one
_MANY = 4  # layers with PyTorch's scale in a network that is deep enough to matter


def notes_on(model: nn.Module, plan: Plan, options: Options) -> list[str]:
    """Returns the notes of the report: what was decided about scales and copies, and what to look at.

    Args:
        model: The model.
        plan: The layers that are to be initialised.
        options: How they are drawn.
    """
    return [
        *_notes_of_scales(model, plan, options),
        *_notes_of_hooks(plan),
        *_notes_of_training(model, plan.choices),
        *_notes_of_copies(plan),
        *_notes_of_stems(plan.choices),
    ]


def notes_on_draws(drawn: list[Drawn], options: Options) -> list[str]:
    """Returns the notes of what was drawn: layers at the scale of the source networks that are far too strong."""
    loud = [row.layer for row in drawn if _is_louder(row)] if options.scale == "prior" else []
    return [
        f"scale='prior' makes {listed(loud)} more than {_LOUD} times as strong as before; where kernels were brought "
        "to one root mean square before the fit, as those of public checkpoints may be, that is not the scale of their "
        "networks, and another one is better"
    ] * bool(loud)


def _is_louder(row: Drawn) -> bool:
    before, after = (row.rms_before or 0.0) * (row.gain_before or 0.0), (row.rms_after or 0.0) * (row.gain_after or 0.0)
    return 0 < _LOUD * before < after


def _notes_of_scales(model: nn.Module, plan: Plan, options: Options) -> list[str]:
    """Says which layers take He's response or pass their inputs on, or that the caller may want another scale."""
    passing = [choice for choice in plan.choices if choice.passing]
    raised = [choice for choice in plan.choices if choice.raised]
    if raised or passing:
        new = [choice for choice in raised if not (choice.passing and choice.passes_all) and not choice.passes_on()]
        return [*_notes_of_he(len(new), len(plan.choices)), *_notes_of_passing(passing, len(plan.choices))]
    layers = plan.layers + plan.kept
    if options.scale not in ("auto", "keep") or len(layers) < _MANY or any(map(normalises, model.modules())):
        return []
    unscaled = sum(map(is_untouched, layers))
    if 2 * unscaled <= len(layers):
        return []
    return [
        f"{unscaled} of {len(layers)} layers have PyTorch's default scale, and nothing normalises: if there are no "
        f"residual connections either, scale='fan_in' is better{', and draws all of them' * bool(plan.kept)}"
    ]


def _notes_of_he(raised: int, layers: int) -> list[str]:
    return [
        f"{raised} of {layers} layers had PyTorch's default scale in a chain without normalisation, and take He's; "
        "scale='keep' keeps theirs"
    ] * (raised > 0)


def _notes_of_passing(passing: list[Choice], layers: int) -> list[str]:
    """Says which layers pass their inputs on, and in how many of them nothing is drawn."""
    if not passing:
        return []
    fixed = sum(not choice.draws for choice in passing)
    seed = f"nothing is drawn in {fixed} of them, so that the seed has no effect there; "
    names = listed([choice.layer.name for choice in passing])
    return [
        f"{len(passing)} of {layers} layers ({names}) pass their inputs on: their first output channels are copies of "
        f"these; {seed * (fixed > 0)}in a new model scale='fan_in' draws all channels"
    ]


def _notes_of_hooks(plan: Plan) -> list[str]:
    """Says that hooks keep layers of a chain from He's response; whether a hook only looks cannot be known."""
    hooked = plan.chain.hooked
    if not hooked or not any(map(is_untouched, plan.layers + plan.kept)):
        return []
    return [
        f"hooks of {listed(hooked)} may change what passes through the chain, so that its layers keep their scales and "
        "none passes its inputs on; if the hooks only look, register them after this call"
    ]


def _notes_of_training(model: nn.Module, choices: list[Choice]) -> list[str]:
    """Says that the model may be trained, if a normalisation has the statistics of batches, or has learned itself."""
    modules = named_modules(model) if choices else ()
    run = [named.name for named in modules if _has_run(named.module) or _has_learned(named.module)]
    if not run:
        return []
    return [
        f"{listed(run)} {'holds' if len(run) == 1 else 'hold'} statistics of batches or learned scales, so that the "
        "model may be trained: what its layers have learned is overwritten; apply_ is for new models, and layers= "
        "leaves out what should stay. If it only ran once, or its author set these scales, nothing is lost"
    ]


def _notes_of_copies(plan: Plan) -> list[str]:
    """Says which layers no longer have the values of another one, as those of a target network are meant to."""
    drawn = set(plan.layers)
    left = [layer for layer in plan.convolutions if layer.reason is None and layer not in drawn]
    copies = copies_among(left, drawn)
    if not copies:
        return []
    return [
        f"{listed([layer.name for layer in copies])} had the values of layers that are drawn, and stay as they are: if "
        "they are to be equal, as in a momentum encoder or a target network, copy the weights after this call"
    ]


def _has_run(module: nn.Module) -> bool:
    """Whether a module has running statistics that are not those of a new one, or has counted batches."""
    count, mean, var = (getattr(module, name, None) for name in ("num_batches_tracked", "running_mean", "running_var"))
    if not (isinstance(mean, Tensor) and isinstance(var, Tensor)) or is_virtual(module):
        return False
    return bool(mean.any() or ((var - 1).abs() > _ROUNDED).any() or (isinstance(count, Tensor) and count.any()))


def _has_learned(module: nn.Module) -> bool:
    """Whether scales and shifts of a normalisation are not the constants that those of a new one are."""
    if not normalises(module) or is_virtual(module):  # what is no norm may compute its weight anew when it is read
        return False
    pair = getattr(module, "weight", None), getattr(module, "bias", None)
    known = [each for each in pair if isinstance(each, Tensor) and each.dim() == 1]
    return len(known) == 2 and all(bool((each != each[:1]).any()) for each in known)


def _notes_of_stems(choices: list[Choice]) -> list[str]:
    stems: dict[tuple[str, str], list[str]] = {}
    for choice in choices:
        if choice.draws and choice.rule.prior.meant_for:
            stems.setdefault((choice.rule.name, choice.rule.prior.meant_for), []).append(choice.layer.label)
    return [f"the filters of {name} in {listed(layers)} are meant for {use}" for (name, use), layers in stems.items()]
