"""wavroute.parallel: FSDP2, tensor parallel and pipeline stages, in two Gloo processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import paths
import pytest

pytest.importorskip("torch")


def test_a_decoder_on_two_devices_is_the_one_on_one():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    script = Path(__file__).with_name("parallel_cases.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(paths.package()), "OMP_NUM_THREADS": "1",
                              "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                              "MASTER_PORT": port})
        for rank in range(2)
    ]
    for process in processes:
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
        assert "done" in stdout
