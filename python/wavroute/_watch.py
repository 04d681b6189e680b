"""Finds out which process of a job is gone, and says so once.

Every process tells the launcher's store twice a second that it is alive, and looks at the others.
A process that was stopped (or whose machine is gone) falls silent; one that was killed is found by
the broken connection long before. Whoever finds it ends, after one of them has said why.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from datetime import timedelta
from typing import Any

#: Seconds between two signs of life, and without one until a process counts as gone.
BEAT = 0.5
SILENT = 10.0


def _start_time(pid: int) -> str:
    """Tells a process from a later one with the same number; empty where there is none."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _machine() -> str:
    """Processes with the same answer can send each other signals."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def say(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class Watch:
    """Of one start of the job: `store` is this process's own connection, with a prefix."""

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._rank, self._size = rank, size
        self._machine = _machine()
        self._beats: dict[int, int] = {}
        self._heard: dict[int, float] = {}
        self._done = threading.Event()
        me = {
            "machine": self._machine,
            "pid": os.getpid(),
            "start": _start_time(os.getpid()),
            "host": os.uname().nodename,
        }
        store.set(f"who/{rank}", json.dumps(me))
        self._thread = threading.Thread(target=self._run, daemon=True, name="wavroute-watch")

    def start(self) -> None:
        self._thread.start()

    def end(self, code: int) -> None:
        """This process ends by itself, and has said why if there is something to say."""
        self._done.set()
        try:
            with self._lock:
                self._store.set(f"ended/{self._rank}", str(code))
        except Exception:  # the launcher is gone too
            pass

    def lost(self, trouble: str) -> int:
        """Another process is gone: says which, once in the job. Returns the exit code."""
        self._done.set()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher's: this process ends anyway
        try:
            with self._lock:
                self._say_lost(trouble)
        except Exception:  # without the launcher's store, every process has to say it
            say(f"wavroute: rank {self._rank}: launcher and other processes are gone: {trouble}\n"
                "hint: --resume auto goes on from the last checkpoint")
        return 1

    def _has(self, key: str) -> bool:
        return bool(self._store.check([key]))

    def _say_lost(self, trouble: str) -> None:
        store = self._store
        store.set(f"alive/{self._rank}", "")
        if store.add("survivors", 1) > 1:
            return  # the first one speaks
        gone: list[int] = []
        for _ in range(20):  # the others need a moment to find out as well
            time.sleep(0.1)
            ranks = range(self._size)
            if any(self._has(f"ended/{rank}") for rank in ranks):
                return  # it has said why
            gone = [rank for rank in ranks if not self._has(f"alive/{rank}")]
        if not gone:
            say(f"wavroute: the processes lost each other: {trouble}\n"
                "hint: look at the network between the machines; --resume auto goes on from the "
                "last checkpoint")
            return
        self._say_gone(gone, "was killed, or its machine is gone")

    def _say_gone(self, gone: list[int], why: str) -> None:
        names = ", ".join(f"rank {rank} ({self._place(rank)})" for rank in gone)
        say(f"wavroute: the training ends because {names} {why}\n"
            "hint: --resume auto goes on from the last checkpoint; a process that needs more "
            "memory than there is gets killed too")

    def _who(self, rank: int) -> dict[str, Any]:
        return json.loads(self._store.get(f"who/{rank}")) if self._has(f"who/{rank}") else {}

    def _place(self, rank: int) -> str:
        who = self._who(rank)
        return f"process {who['pid']} on {who['host']}" if who else "it never began"

    def _run(self) -> None:
        beat = 0
        while not self._done.wait(BEAT):
            beat += 1
            try:
                with self._lock:
                    self._store.set(f"beat/{self._rank}", str(beat))
                    silent = self._silent()
                    if silent and not self._done.is_set():
                        self._end_for(silent)
            except Exception:  # the launcher is gone: training goes on, or finds it out itself
                return

    def _silent(self) -> list[int]:
        now = time.monotonic()
        for rank in range(self._size):
            if rank == self._rank:
                continue
            if self._has(f"ended/{rank}"):
                self._heard.pop(rank, None)
                self._beats.pop(rank, None)
                continue
            # One that was stopped before its first sign of life is silent as well.
            begun = self._has(f"beat/{rank}")
            beat = int(self._store.get(f"beat/{rank}")) if begun else 0
            if beat != self._beats.get(rank):
                self._beats[rank], self._heard[rank] = beat, now
        return [rank for rank, heard in self._heard.items() if now - heard > SILENT]

    def _end_for(self, silent: list[int]) -> None:
        """Ends this process, and those that hang beside it: a launcher would wait for them."""
        if self._store.add("survivors", 1) == 1:
            self._say_gone(silent, f"has given no sign of life for {SILENT:.0f} s: it hangs")
        for rank in silent:
            who = self._who(rank)
            is_here = who and self._machine and who["machine"] == self._machine
            if is_here and _start_time(who["pid"]) == who["start"]:
                try:
                    os.kill(who["pid"], signal.SIGKILL)
                except OSError:
                    pass
        os._exit(1)


def connect(host: str, port: int, seconds: float, prefix: str, hosts: bool = False) -> Any:
    """A connection of its own to the store at ``host:port``. hosts: this process opens the store.

    The launcher's store outlives a start of the processes: a prefix keeps one start's keys apart
    from the next one's, which torch.distributed does not do by itself (torch 2.13: a process may
    then try to reach one that was killed).
    """
    from torch.distributed import PrefixStore, TCPStore

    store = TCPStore(host, port, is_master=hosts, wait_for_workers=False,
                     timeout=timedelta(seconds=seconds))
    return PrefixStore(prefix, store)
