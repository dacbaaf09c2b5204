"""The version of this package, on its own so that a build reads it without importing torch."""

__version__ = "0.2.0.dev0"
