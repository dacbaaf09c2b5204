"""A demonstration in the browser, for the Spaces of the Hugging Face Hub: ``python -m space.app``."""
