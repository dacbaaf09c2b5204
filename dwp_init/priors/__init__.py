"""Priors over convolution kernels, a family a file."""

from dwp_init.priors.base import Prior as Prior
from dwp_init.priors.gaussian import Gaussian as Gaussian
from dwp_init.priors.vae import KernelVAE as KernelVAE

FAMILIES: dict[str, type[Prior]] = {family.family: family for family in (Gaussian, KernelVAE)}
