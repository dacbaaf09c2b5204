"""What a Space runs; in a clone: ``python -m space.app``."""

import torch

from space.interface import launch

if __name__ == "__main__":
    torch.set_num_threads(1)  # two networks train at a time, on the two cores of a free Space
    launch()
