"""Bayesian convolutional networks under learned priors: variational inference (Section 3.2, Algorithm 1), and MAP.

dwp_init.apply_(model, prior)
priors = bayes.bayesianize_(model, prior=prior)
bayes.train_(bayes.Objective(model, priors.terms()), loader, steps=steps)
probabilities = bayes.predict_samples(model, test_images).mean(0)
bayes.save_posterior(model, "posterior.safetensors")
"""

from dwp_init.bayes.convert import bayesian_layers as bayesian_layers
from dwp_init.bayes.convert import bayesianize_ as bayesianize_
from dwp_init.bayes.convert import posterior_mean_ as posterior_mean_
from dwp_init.bayes.convert import sample_network as sample_network
from dwp_init.bayes.gap import LayerGap as LayerGap
from dwp_init.bayes.gap import bound_gaps as bound_gaps
from dwp_init.bayes.kl import KL as KL
from dwp_init.bayes.kl import LogUniformKL as LogUniformKL
from dwp_init.bayes.kl import NormalKL as NormalKL
from dwp_init.bayes.kl import ScaledKL as ScaledKL
from dwp_init.bayes.kl import TruncatedLogUniformKL as TruncatedLogUniformKL
from dwp_init.bayes.layer_priors import LayerPrior as LayerPrior
from dwp_init.bayes.layer_priors import LayerPriors as LayerPriors
from dwp_init.bayes.layer_priors import layer_priors as layer_priors
from dwp_init.bayes.layers import SCALE as SCALE
from dwp_init.bayes.layers import BayesConv2d as BayesConv2d
from dwp_init.bayes.layers import Estimator as Estimator
from dwp_init.bayes.layers import RelativeBayesConv2d as RelativeBayesConv2d
from dwp_init.bayes.objective import Objective as Objective
from dwp_init.bayes.objective import Terms as Terms
from dwp_init.bayes.posterior import load_posterior as load_posterior
from dwp_init.bayes.posterior import save_posterior as save_posterior
from dwp_init.bayes.predict import predict as predict
from dwp_init.bayes.predict import predict_samples as predict_samples
from dwp_init.bayes.predict import predictive_entropy as predictive_entropy
from dwp_init.bayes.prior_kl import AuxiliaryKL as AuxiliaryKL
from dwp_init.bayes.prior_kl import GaussianKL as GaussianKL
from dwp_init.bayes.prior_kl import LatentKL as LatentKL
from dwp_init.bayes.prior_kl import MonteCarloKL as MonteCarloKL
from dwp_init.bayes.prior_kl import PriorKL as PriorKL
from dwp_init.bayes.prior_kl import SemiImplicitKL as SemiImplicitKL
from dwp_init.bayes.prior_kl import kl_from as kl_from
from dwp_init.bayes.scales import Spread as Spread
from dwp_init.bayes.scales import optimal_scale as optimal_scale
from dwp_init.bayes.scales import spreads as spreads
from dwp_init.bayes.scales import start_at_optimal_scales_ as start_at_optimal_scales_
from dwp_init.bayes.schedule import Schedule as Schedule
from dwp_init.bayes.train import train_ as train_
from dwp_init.bayes.trainer import Trainer as Trainer
