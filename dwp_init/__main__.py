"""``python -m dwp_init``: the same as the command ``dwp-init``."""

import sys

from dwp_init.cli import main

if __name__ == "__main__":
    sys.exit(main())
