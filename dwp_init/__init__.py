"""Initialises convolutions with kernels drawn from a learned prior: the deep weight prior (Atanov et al. 2019)."""

from dwp_init import init as init
from dwp_init.errors import PriorCorruptError as PriorCorruptError
from dwp_init.errors import PriorDownloadError as PriorDownloadError
from dwp_init.errors import PriorError as PriorError
from dwp_init.errors import PriorNotFoundError as PriorNotFoundError
from dwp_init.files import save_prior as save_prior
from dwp_init.initialize import apply_ as apply_
from dwp_init.priors import Autoregressive as Autoregressive
from dwp_init.priors import Flow as Flow
from dwp_init.priors import Gaussian as Gaussian
from dwp_init.priors import GaussianMixture as GaussianMixture
from dwp_init.priors import KernelChain as KernelChain
from dwp_init.priors import KernelDensity as KernelDensity
from dwp_init.priors import KernelVAE as KernelVAE
from dwp_init.priors import MixtureByDepth as MixtureByDepth
from dwp_init.priors import PatchWhitening as PatchWhitening
from dwp_init.priors import Prior as Prior
from dwp_init.priors import register as register
from dwp_init.registry import list_priors as list_priors
from dwp_init.registry import load_prior as load_prior
from dwp_init.report import Coverage as Coverage
from dwp_init.report import Drawn as Drawn
from dwp_init.report import Report as Report
from dwp_init.sets import SETS as SETS
from dwp_init.sets import PriorSet as PriorSet
from dwp_init.version import __version__ as __version__
