"""Priors over convolution kernels, one family per file."""

from dwp_init.priors.autoregressive import Autoregressive as Autoregressive
from dwp_init.priors.base import FAMILIES as FAMILIES
from dwp_init.priors.base import Estimate as Estimate
from dwp_init.priors.base import Prior as Prior
from dwp_init.priors.base import register as register
from dwp_init.priors.by_depth import MixtureByDepth as MixtureByDepth
from dwp_init.priors.chain import KernelChain as KernelChain
from dwp_init.priors.flow import Flow as Flow
from dwp_init.priors.gaussian import Gaussian as Gaussian
from dwp_init.priors.kde import KernelDensity as KernelDensity
from dwp_init.priors.mixture import GaussianMixture as GaussianMixture
from dwp_init.priors.patches import PatchWhitening as PatchWhitening
from dwp_init.priors.vae import KernelVAE as KernelVAE
