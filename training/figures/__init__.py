"""What pictures share, and pictures of kernels; a picture of an experiment is in the experiment's file."""
