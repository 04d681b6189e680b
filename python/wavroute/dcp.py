"""Checkpoints in the format of ``torch.distributed.checkpoint``, and back.

    python -m wavroute.dcp RUN OUT             a run's newest whole checkpoint, or that folder
    python -m wavroute.dcp --back IN RUN OUT   parameters of IN in a model folder like RUN's

In OUT, every parameter has its name in model.safetensors ("model.layers.0.mlp.up_proj.weight"); the
optimizer's moments are ``optimizer.exp_avg.NAME`` and ``optimizer.exp_avg_sq.NAME``, the numbers of
state.json ``training.KEY``. A part is enough to load: ``torch.distributed.checkpoint.load`` reads
the names of the dictionary that it is given, in any number of processes.

The folder that ``--back`` writes is one that ``train.init`` and every other command take.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

from wavroute import _safetensors


def checkpoint_folder(run: str | os.PathLike[str]) -> Path:
    """The folder with the weights of a run: its newest whole checkpoint, or the folder itself.

    Errors: RuntimeError that says what was found there instead.
    """
    from wavroute._library import ops

    return Path(ops.resolve_run(os.fspath(run)))


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Parameters under their names, "optimizer" and "training" where the folder has them."""
    state: dict[str, Any] = dict(_safetensors.read(folder / "model.safetensors"))
    moments = folder / "optimizer.safetensors"
    if moments.exists():
        optimizer: dict[str, dict[str, torch.Tensor]] = {"exp_avg": {}, "exp_avg_sq": {}}
        for name, tensor in _safetensors.read(moments).items():
            kind, _, parameter = name.partition(".")
            optimizer[kind][parameter] = tensor
        state["optimizer"] = optimizer
    numbers = folder / "state.json"
    if numbers.exists():
        plain = (int, float, str)
        content = json.loads(numbers.read_text())
        state["training"] = {
            key: value for key, value in content.items() if isinstance(value, plain)}
    return state


def _make_folder(out: Path, fill: Callable[[Path], None]) -> None:
    """Makes `out` whole or not at all."""
    if out.exists():
        raise ValueError(f"expected a folder that is not there yet, given {out}")
    out.parent.mkdir(parents=True, exist_ok=True)
    half = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        half.mkdir()
        fill(half)
        os.replace(half, out)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise


def write(run: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Writes the newest whole checkpoint of `run` to the new folder `out`.

    Errors: RuntimeError for a run without one, ValueError where `out` is there, OSError.
    """
    state = read_checkpoint(checkpoint_folder(run))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process
        _make_folder(Path(out), lambda half: dcp.save(state, checkpoint_id=half, no_dist=True))


def write_back(
    source: str | os.PathLike[str], run: str | os.PathLike[str], out: str | os.PathLike[str]
) -> None:
    """Writes the parameters in `source` to `out`, a model folder with the other files of `run`'s.

    Errors: as write(); what torch.distributed.checkpoint raises where `source` lacks a parameter or
    has one of another shape.
    """
    folder = checkpoint_folder(run)
    like = _safetensors.read(folder / "model.safetensors")
    state = {name: torch.empty_like(tensor) for name, tensor in like.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(state, checkpoint_id=os.fspath(source), no_dist=True)

    def fill(half: Path) -> None:
        for file in folder.iterdir():
            if file.name not in ("model.safetensors", "optimizer.safetensors", "state.json"):
                shutil.copyfile(file, half / file.name)
        _safetensors.write(half / "model.safetensors", state)

    _make_folder(Path(out), fill)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m wavroute.dcp", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="RUN OUT, or IN RUN OUT")
    parser.add_argument("--back", action="store_true", help="from that format to a model folder")
    given = parser.parse_args(words)
    count = 3 if given.back else 2
    if len(given.folders) != count:
        parser.error(f"expected {count} folders, given {len(given.folders)}")
    try:
        (write_back if given.back else write)(*given.folders)
    except Exception as error:  # of this package, of the files, of torch.distributed.checkpoint
        sys.stderr.write(f"wavroute: {str(error).partition(chr(10))[0]}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
