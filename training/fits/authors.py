"""Import of a checkpoint of the paper's released code as a prior."""

import hashlib
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dwp_init
from dwp_init import KernelVAE, save_prior
from dwp_init.folder import CONFIG, MODEL

_SIZES = (7, 5)
_MIN_SCALE = 1e-6  # the released code has no floor; a prior needs one above 0
UNSTATED = "see the checkpoint's own licence"
_THEIRS = {"encoder.features.": "encoder.body.", "decoder.decoder.": "decoder.body."}
_5X5_HEADS = {".fc_sigma.": ".fc_var.", ".fc_mu.0.": ".fc_mu.", ".fc_var.0.": ".fc_var."}


def import_authors(
    path: Path,
    kernel_size: int,
    folder: Path,
    name: str | None = None,
    license: str = UNSTATED,
    variance: float | None = None,
) -> Path:
    """Turns a ``vae_params.torch`` that the paper's released ``train-vae.py`` saved into a prior's folder.

    Encoder, decoder and their variances are kept as they are, except that the floors of :class:`dwp_init.KernelVAE`
    are added to the variances: 1e-12 in the decoder, 1e-8 in the encoder. Only tensors are unpickled.

    A checkpoint that was trained with ``--var`` has a decoder of that one variance, which it does not hold: the layer
    ``decoder.fc_var`` in it was never trained. Nothing in it tells such a checkpoint, so ``variance`` must say it.

    Args:
        path: A ``state_dict`` saved by ``torch.save``, alone or under the key ``state_dict``, of the networks of
            Appendix H.1.
        kernel_size: 7 or 5.
        folder: Folder of the prior; it must not hold one yet.
        name: Name of the prior; by default that of the folder.
        license: Licence of the checkpoint.
        variance: The variance of p(w|z) with which it was trained, ``--var`` of ``train-vae.py``; by default that of
            the decoder's own layer.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: ``path`` is not a file.
        FileExistsError: ``folder`` holds a prior.
        ValueError: The file is not such a checkpoint, and the message says how it differs; or ``variance`` is not
            above the decoder's floor.

    Reference: Atanov et al., The Deep Weight Prior, ICLR 2019.
    """
    if kernel_size not in _SIZES:
        raise ValueError(f"the released code's VAEs are for 7×7 and 5×5 kernels; got kernel_size={kernel_size!r}")
    if variance is not None and not _MIN_SCALE**2 < variance < math.inf:
        raise ValueError(f"the decoder's variance is a finite number above {_MIN_SCALE**2:g}; got {variance!r}")
    taken = [file for file in (CONFIG, MODEL) if (folder / file).exists()]
    if taken:
        raise FileExistsError(f"{folder} holds {' and '.join(taken)} already; choose another --out, or remove it")
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}; give the vae_params.torch of the paper's released code")
    content = path.read_bytes()
    prior = _prior(_renamed(_state_dict(content, path), path), kernel_size, path)
    if variance is not None:
        _set_variance_(prior, variance)
    prior.details = {
        "name": name or folder.resolve().name,
        "license": license,
        "source": {
            "checkpoint": "the authors' released checkpoint",
            "file": path.name,
            "sha256": hashlib.sha256(content).hexdigest(),
            **({} if variance is None else {"decoder_variance": variance}),
        },
        "created_with": {"dwp_init": dwp_init.__version__, "torch": torch.__version__},
    }
    return save_prior(prior, folder)


def _state_dict(content: bytes, path: Path) -> Mapping[str, Any]:
    try:
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} cannot be read as tensors alone ({reason}); give a state_dict() saved by torch.save: other "
            "pickled objects are refused, because they can run code"
        ) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found:
        what = "nothing" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise ValueError(f"{path} holds {what}, expected tensors by name; give a state_dict() saved by torch.save")
    return found


def _renamed(found: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Returns the tensors, in float32, under the names of :class:`dwp_init.KernelVAE`."""
    tensors: dict[str, Tensor] = {}
    for key, value in found.items():
        name = str(key).removeprefix("module.")
        for theirs, ours in (_THEIRS | _5X5_HEADS).items():
            name = name.replace(theirs, ours)
        if name in tensors:
            raise ValueError(f"{path} holds {key} and the same layer under another name; remove one of the two")
        tensors[name] = _checked(value, f"{key} of {path}")
    return tensors


def _checked(value: object, what: str) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_meta or value.layout != torch.strided:
        found = f"a {value.dtype} tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ValueError(
            f"{what} is {found}, expected a dense floating-point one with memory; save the VAE's state_dict()"
        )
    tensor = value.float()
    wrong = (~tensor.isfinite()).sum().item()
    if wrong:
        raise ValueError(
            f"{what} has {wrong} NaN or, in float32, infinite values of {tensor.numel()}; all must be finite: take the "
            "checkpoint of an earlier epoch"
        )
    return tensor


def _prior(tensors: dict[str, Tensor], size: int, path: Path) -> KernelVAE:
    """Builds the VAE of a kernel size and gives it the tensors, if they are its own."""
    found = set(tensors)
    fitting = [other for other in _SIZES if found == _names(other)]
    if fitting and size not in fitting:
        raise ValueError(
            f"{path} is for {fitting[0]}×{fitting[0]} kernels, not {size}×{size}: pass --kernel-size {fitting[0]}"
        )
    if not fitting:
        missing, unknown = (
            ", ".join(sorted(map(_in_authors_words, names))) or "none"
            for names in (_names(size) - found, found - _names(size))
        )
        raise ValueError(
            f"{path} is not a VAE of Appendix H.1 for {size}×{size} kernels: tensors missing: {missing}; unknown: "
            f"{unknown}; give the vae_params.torch of the paper's released code"
        )
    prior = _vae(size, latent_dim=max([1, *tensors["encoder.fc_mu.weight"].shape[:1]]))
    state = prior.state_dict()
    for name, tensor in tensors.items():
        if tensor.shape != state[name].shape:
            raise ValueError(
                f"{_in_authors_words(name)} of {path} has shape {tuple(tensor.shape)}, expected "
                f"{tuple(state[name].shape)} as in Appendix H.1 for {size}×{size} kernels with "
                f"{prior.latent_dim} latent dimensions; other widths cannot be imported"
            )
    prior.load_state_dict(state | tensors)
    return prior.eval().requires_grad_(False)


def _set_variance_(prior: KernelVAE, variance: float) -> None:
    """Makes the variance of p(w|z) one number, whatever z."""
    state, softplus = prior.state_dict(), variance - _MIN_SCALE**2
    state["decoder.fc_var.weight"].zero_()
    state["decoder.fc_var.bias"].fill_(softplus + math.log(-math.expm1(-softplus)))  # the inverse of softplus


def _vae(size: int, latent_dim: int) -> KernelVAE:
    return KernelVAE((1, size, size), network="paper", latent_dim=latent_dim, min_scale=_MIN_SCALE, whiten=False)


def _names(size: int) -> set[str]:
    with torch.device("meta"):
        return {name for name in _vae(size, latent_dim=1).state_dict() if not name.startswith("whitening.")}


def _in_authors_words(name: str) -> str:
    for theirs, ours in _THEIRS.items():
        name = name.replace(ours, theirs)
    return name
