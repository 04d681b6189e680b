"""``python -m wavroute WORDS``: the command. Under torchrun, one training in all its processes."""

from __future__ import annotations

import os
import signal
import sys
from datetime import timedelta

from wavroute._launch import Launch, choose_gpu, read_launch, share_cores, share_waiting

#: Seconds to find the master, and for one exchange between processes: the first process may write a
#: large checkpoint meanwhile. What hangs or dies is found sooner (wavroute._watch).
CONNECT, EXCHANGE = 25.0, 1800.0

#: The command's exit code where another process vanished (train/processes.h).
VANISHED = 75


def _resumed(words: list[str]) -> list[str]:
    """The words of a training that torchrun starts again: on from the last checkpoint."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word == "--resume":
            skip = True
        elif not word.startswith("--resume="):
            kept.append(word)
    return [*kept, "--resume", "auto"]


def _complain(what: str, hint: str) -> int:
    sys.stderr.write(f"wavroute: {what}\nhint: {hint}\n")
    return 2


def _train(words: list[str], launch: Launch) -> int:
    import logging
    import warnings

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # c10d's traces; the errors come to us
    warnings.filterwarnings("ignore", module="torch")
    import torch
    import torch.distributed as dist

    from wavroute import _watch
    from wavroute._library import ops

    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    host = os.environ.get("MASTER_ADDR", "127.0.0.1")
    port = int(os.environ.get("MASTER_PORT", "29500"))
    # GPUs are the concern of NCCL; numbers and words go over the CPU's.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "cpu:gloo"
    # Of this start of the processes, should the launcher start them again.
    start = f"wavroute/{launch.restart}/{launch.world_size}/"
    hosts = launch.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        meeting = _watch.connect(host, port, CONNECT, start + "group", hosts)
        dist.init_process_group(backend, store=meeting, rank=launch.rank,
                                world_size=launch.world_size, timeout=timedelta(seconds=CONNECT))
        store = _watch.connect(host, port, CONNECT, start + "watch")
    except Exception as error:
        reason = str(error).partition("\n")[0]
        return _complain(
            f"rank {launch.rank}: expected the processes of the job to meet at {host}:{port} "
            f"within {CONNECT:.0f} s, given none: {reason}",
            "MASTER_ADDR and MASTER_PORT must name the first machine, and it must be running; "
            "torchrun --rdzv-endpoint HOST:PORT sets them",
        )
    group = dist.group.WORLD
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=EXCHANGE), group)
    watch = _watch.Watch(store, launch.rank, launch.world_size)
    watch.start()
    ops.expect_repeated_signals()
    code = int(ops.run_command([*words, "--group", group.group_name, "--torch", torch.__version__]))
    if code == VANISHED:
        return watch.lost(ops.process_group_trouble())
    watch.end(code)
    return code


def main(words: list[str] | None = None) -> int:
    """Runs the command with these words (sys.argv's); returns its exit code."""
    words = sys.argv[1:] if words is None else words
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the command has handlers of its own
    share_waiting()
    launch = read_launch()
    if launch.restart > 0 and words[:1] == ["train"]:
        words = _resumed(words)
    if launch.is_distributed:
        if words[:1] != ["train"]:
            if launch.rank == 0:
                return _complain(
                    f"expected the command train under torchrun, given "
                    f"'{' '.join(words[:1])}' in {launch.world_size} processes",
                    "start the other commands without torchrun",
                )
            return 2
        share_cores(launch)
        choose_gpu(launch)
        return _train(words, launch)

    from wavroute._library import ops

    return int(ops.run_command(words))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of torch.distributed may wait for processes that are gone.
    os._exit(code)
