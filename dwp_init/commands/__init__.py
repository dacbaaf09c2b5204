"""The commands of ``dwp-init``, one file for each; :mod:`dwp_init.cli` runs them."""
