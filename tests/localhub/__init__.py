"""A Hub on the loopback interface, which drives the real ``huggingface_hub`` client in tests.

`repos` is what the Hub holds (`User`, `File`, `Repo`), `calls` what a request is (`Call`), `answers` what is sent back
(`Answer`, `HubError`), `routes` one function per request, and `server` the server (`LocalHub`) and its faults. There
are only models, and only the requests of a loader and a publisher.

There are two listeners, because the Hub redirects requests for large files to *another* origin, where the client shows
no token:

    hub    http://127.0.0.1:<port>      the endpoint
    files  http://localhost:<port>      bodies of large files, up and down

The client must not use Xet: set ``HF_HUB_DISABLE_XET=1`` before it is imported. To start a Hub by hand:
``python -m tests.localhub``.
"""

from tests.localhub import routes as routes  # registers the functions that answer
from tests.localhub.answers import HubError as HubError
from tests.localhub.calls import Call as Call
from tests.localhub.server import LocalHub as LocalHub
