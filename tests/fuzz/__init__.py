"""Faults on purpose: damaged files, hostile answers, random models, kills and losses of power, and what comes of each.

`target` says what a try is and judges it; `mutations` damages bytes, JSON and tensors. There is a module of targets for
each kind of input: `prior_folders`, `kernel_files`, `checkpoints`, `run_folders`, `hub_answers`, `models`. `calls`
listens to the calls that change files, and `children` starts forked processes, for `kills`, `publishing` and `power`.

A short part runs in the tests, always with the same choices. ``python -m tests.fuzz --help`` says how to run more.
"""
