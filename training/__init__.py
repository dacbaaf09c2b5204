"""The pipeline behind the priors: images → source networks → kernels → prior → experiments.

Run from a clone with ``python -m training list`` and ``python -m training run RECIPE``.
"""
