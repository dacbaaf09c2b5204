"""Fuzzing needs hypothesis, the training extra, and a system with fork."""

import importlib.util
import sys

NEEDED = ("hypothesis", "torchvision", "onnx", "filelock")
if sys.platform != "linux" or not all(map(importlib.util.find_spec, NEEDED)):
    collect_ignore_glob = ["*.py"]
