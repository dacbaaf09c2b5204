"""A configuration from anywhere costs no more time and memory than the file of its tensors."""

import json
import subprocess
import sys

import pytest

CLAIMS = {
    "kde": ([1, 32, 32], {"count": 2**20}),  # 10⁹ numbers, like most of the others
    "autoregressive": ([1, 3, 3], {"hidden": 2**20, "mixtures": 100}),
    "vae": ([1, 3, 3], {"hidden": 2**15}),
    "chain": ([1, 3, 3], {"transitions": 1000, "hidden": 1000}),
    "mixture": ([1, 32, 32], {"components": 1000}),
    "mixture-by-depth": ([1, 3, 3], {"depths": [i / 20_000 for i in range(20_000)], "components": [1] * 20_000}),
    "gaussian": ([1, 1000, 1000], {}),
    "flow": ([1, 3, 3], {"transforms": 3, "hidden": 6000}),
}
LOAD = """
import json, resource, sys, time
from dwp_init.files import parse_prior
from dwp_init.folder import CONFIG, MODEL
from dwp_init.storage import json_bytes
claim, small = json.load(sys.stdin)
contents = {CONFIG: json_bytes(claim), MODEL: bytes(620)}
small = claim | {"kernel_shape": [1, 2, 2], "arguments": small}
for each in ({CONFIG: json_bytes(small)}, {}):  # first what imports take
    memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        parse_prior(contents | each, "here")
    except ValueError as error:
        message = str(error)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
print(json.dumps([message, time.process_time() - start, used / 1024]))
"""
SMALL = {"depths": [0.5], "components": [1]}


@pytest.mark.skipif(sys.platform != "linux", reason="needs a process's largest memory, in kilobytes")
@pytest.mark.parametrize("family", CLAIMS)
def test_a_large_claim_fails_within_a_second_and_50_mb(family: str) -> None:
    shape, arguments = CLAIMS[family]
    config = {"format_version": 1, "family": family, "kernel_shape": shape, "arguments": arguments}
    small = SMALL if family == "mixture-by-depth" else {"count": 2} if family == "kde" else {}
    given = json.dumps([config, small])
    done = subprocess.run([sys.executable, "-c", LOAD], input=given, capture_output=True, text=True, check=True)
    message, seconds, megabytes = json.loads(done.stdout)
    assert "it needs more numbers than the 620 bytes of its tensors can hold" in message
    assert seconds < 1 and megabytes < 50
