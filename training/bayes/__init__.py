"""Variational inference over convolution kernels (Section 3.2): Bayesian layers, KL terms, Algorithm 1, its gap.

import dwp_init
from training import bayes

dwp_init.apply_(network, ["notmnist-7x7-vae", "notmnist-5x5-vae"], scale="prior")
bayes.bayesianize_(network)
terms = [bayes.kl_from(dwp_init.load_prior(name)) for name in ("notmnist-7x7-vae", "notmnist-5x5-vae")]
trainer = bayes.Trainer([bayes.Objective(network, terms, kernels=512)], images[None], labels[None], bayes.Schedule())
trainer.run()
probabilities = bayes.predict_samples(trainer.trained()[0].network, test_images).mean(0)
"""

from training.bayes.convert import bayesian_layers as bayesian_layers
from training.bayes.convert import bayesianize_ as bayesianize_
from training.bayes.convert import posterior_mean_ as posterior_mean_
from training.bayes.convert import sample_network as sample_network
from training.bayes.gap import LayerGap as LayerGap
from training.bayes.gap import bound_gaps as bound_gaps
from training.bayes.kl import KL as KL
from training.bayes.kl import AuxiliaryKL as AuxiliaryKL
from training.bayes.kl import GaussianKL as GaussianKL
from training.bayes.kl import LatentKL as LatentKL
from training.bayes.kl import LogUniformKL as LogUniformKL
from training.bayes.kl import MonteCarloKL as MonteCarloKL
from training.bayes.kl import NormalKL as NormalKL
from training.bayes.kl import PriorKL as PriorKL
from training.bayes.kl import SemiImplicitKL as SemiImplicitKL
from training.bayes.kl import TruncatedLogUniformKL as TruncatedLogUniformKL
from training.bayes.kl import kl_from as kl_from
from training.bayes.layers import SCALE as SCALE
from training.bayes.layers import BayesConv2d as BayesConv2d
from training.bayes.layers import RelativeBayesConv2d as RelativeBayesConv2d
from training.bayes.objective import Objective as Objective
from training.bayes.objective import Terms as Terms
from training.bayes.predict import ood_auroc as ood_auroc
from training.bayes.predict import predict as predict
from training.bayes.predict import predict_samples as predict_samples
from training.bayes.predict import prediction_scores as prediction_scores
from training.bayes.scales import Spread as Spread
from training.bayes.scales import optimal_scale as optimal_scale
from training.bayes.scales import spreads as spreads
from training.bayes.scales import start_at_optimal_scales_ as start_at_optimal_scales_
from training.bayes.trainer import Schedule as Schedule
from training.bayes.trainer import Trainer as Trainer
