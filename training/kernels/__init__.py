"""Kernel data sets: from source networks, from existing checkpoints and from files."""
