"""What a launcher (torchrun) tells a process, and what has to be set before torch is imported."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """A process's place among those of a job."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    restart: int = 0  #: how often torchrun has started the processes again

    @property
    def is_distributed(self) -> bool:
        return self.world_size > 1


def read_launch() -> Launch:
    """From the variables that torchrun sets; one process without them."""

    def number(name: str, default: int) -> int:
        return int(os.environ.get(name, default))

    return Launch(
        rank=number("RANK", 0),
        world_size=number("WORLD_SIZE", 1),
        local_rank=number("LOCAL_RANK", 0),
        local_world_size=number("LOCAL_WORLD_SIZE", 1),
        restart=number("TORCHELASTIC_RESTART_COUNT", 0),
    )


def _users_threads() -> bool:
    """Whether OMP_NUM_THREADS is the user's own.

    torchrun sets it to 1 where the user has not set it. A process's /proc/PID/environ shows what it
    was started with, so the launcher's lacks a variable that the launcher has set itself.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        return False
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return True
    try:
        with open(f"/proc/{os.getppid()}/environ", "rb") as file:
            names = [entry.partition(b"=")[0] for entry in file.read().split(b"\0")]
    except OSError:
        return os.environ["OMP_NUM_THREADS"] != "1"
    return b"OMP_NUM_THREADS" in names


def _in_order_of_cores(cpus: set[int]) -> list[int]:
    """Neighbours share a package and a core."""

    def place(cpu: int) -> tuple[int, int, int]:
        topology = f"/sys/devices/system/cpu/cpu{cpu}/topology/"
        try:
            with open(topology + "physical_package_id") as package:
                with open(topology + "core_id") as core:
                    return int(package.read()), int(core.read()), cpu
        except (OSError, ValueError):
            return 0, cpu, cpu

    return sorted(cpus, key=place)


def share_cores(launch: Launch) -> None:
    """Gives each process of a machine its own equal part of the cores.

    Leaves alone what the user has chosen: OMP_NUM_THREADS, or other cores for this process than
    for its launcher. Where there are more processes than cores, each has one thread.
    """
    if launch.local_world_size < 2 or _users_threads():
        return
    if "TORCHELASTIC_RUN_ID" not in os.environ or not hasattr(os, "sched_setaffinity"):
        return
    cores = os.sched_getaffinity(0)
    each = len(cores) // launch.local_world_size
    if each == 0:
        return  # torchrun's single thread
    if cores == os.sched_getaffinity(os.getppid()):
        first = launch.local_rank * each
        os.sched_setaffinity(0, _in_order_of_cores(cores)[first : first + each])
    # A quota of the control group may be less than that: then the limit is what matters.
    os.environ.pop("OMP_NUM_THREADS", None)


def share_waiting() -> None:
    """OpenMP's threads wait as those of the program do (apps/wavroute/restart.cpp says why)."""
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = os.environ["WAVROUTE_SPINCOUNT"] = "1000"


def choose_gpu(launch: Launch) -> None:
    """Lets each process of a machine see one GPU: the command takes the first that it sees."""
    if launch.local_world_size < 2:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(launch.local_rank)
        return
    devices = [device for device in visible.split(",") if device]
    if launch.local_rank < len(devices):
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[launch.local_rank]
