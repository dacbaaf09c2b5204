"""All targets, by name."""

from tests.fuzz import checkpoints, kernel_files, prior_folders, run_folders
from tests.fuzz.target import Target

MODULES = (prior_folders, kernel_files, checkpoints, run_folders)
TARGETS: dict[str, Target] = {target.name: target for module in MODULES for target in module.TARGETS}
