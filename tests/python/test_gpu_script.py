"""./dev gpu where there is no GPU, and as far as it gets with one that only says that it is there."""

import os
import shutil
import subprocess

import paths
import pytest


def dev_gpu(folder, *arguments, python: str = "python3"):
    env = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "WAVROUTE_PYTHON": python}
    return subprocess.run([paths.REPOSITORY / "dev", "gpu", *arguments], env=env, text=True,
                          capture_output=True, timeout=60)


def pretend(folder, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_says_that_there_is_no_gpu(tmp_path):
    pretend(tmp_path, "nvidia-smi", "exit 9")
    done = dev_gpu(tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert "expected an NVIDIA GPU" in done.stderr and "hint:" in done.stderr


def test_refuses_what_it_does_not_know(tmp_path):
    done = dev_gpu(tmp_path, "--fast")
    assert done.returncode == 2 and "'--fast'" in done.stderr


@pytest.mark.skipif(shutil.which("nvcc") is not None or os.path.exists("/usr/local/cuda/bin/nvcc"),
                    reason="there is an nvcc")
def test_names_the_compiler_that_is_missing(tmp_path):
    pretend(tmp_path, "nvidia-smi", "echo 9.0")
    pretend(tmp_path, "python-of-cuda", "echo 13.0")
    pretend(tmp_path, "cmake", "exit 1")  # nothing is built
    done = dev_gpu(tmp_path, python=str(tmp_path / "python-of-cuda"))
    assert done.returncode != 0
    assert "nvcc of CUDA 13" in done.stdout and "cuda-nvcc-13-0" in done.stdout
