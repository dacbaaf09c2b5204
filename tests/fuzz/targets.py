"""All targets, by name."""

from tests.fuzz import checkpoints, hub_answers, kernel_files, models, prior_folders, run_folders
from tests.fuzz.target import Target

MODULES = (prior_folders, kernel_files, checkpoints, run_folders, hub_answers, models)
TARGETS: dict[str, Target] = {target.name: target for module in MODULES for target in module.TARGETS}
