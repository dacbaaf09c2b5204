"""``python -m tests.localhub``: runs a Hub until it is interrupted, and prints the variables that lead to it."""

import threading
from contextlib import suppress

from tests.localhub import LocalHub

if __name__ == "__main__":
    with LocalHub() as hub:
        print(
            f"export HF_ENDPOINT={hub.endpoint} HF_TOKEN=hf_write HF_HUB_DISABLE_XET=1 HF_HOME=$(mktemp -d)", flush=True
        )
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
