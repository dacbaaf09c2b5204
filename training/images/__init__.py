"""Images as tensors: data sets, parts of them, and augmentation."""
