"""Forwards the metrics of a run to TensorBoard, Weights & Biases, Trackio or MLflow.

``python -m wavroute.sink RUN --to NAME...`` follows ``RUN/metrics.jsonl`` while the run is in training and
forwards what is there of one that has ended. ``train.sinks`` starts it beside a training. What the sinks
keep lies in ``RUN/sinks``, unless the programs' own environment variables name another place
(``MLFLOW_TRACKING_URI``, ``WANDB_MODE``, ``TRACKIO_DIR``).

A row is forwarded once, however often this program or the training is started again: ``sinks/state.json``
says how far each sink has come. Nothing here needs torch; a sink's own package is imported when it is used.
"""

from __future__ import annotations

import argparse
import difflib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import select
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = 1  # of state.json
INTERVAL = 1.0  # seconds between two looks at metrics.jsonl
EXTRA_MISSING = 3  # exit status of --check; the last line has the packages to install

#: Name of a sink -> what pip installs for it. The module is called like the sink.
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow-skinny"}

#: Keys of metrics.jsonl under the names that these programs group by; others stay as they are.
TRAIN_NAMES = {"loss": "train/loss", "aux_loss": "train/aux_loss", "mean_depth": "train/mean_depth"}
VALID_NAMES = {"val_loss": "val/loss", "bits_per_byte": "val/bits_per_byte", "mean_depth": "val/mean_depth"}


class SinkError(Exception):
    """What a user can mend; the message is one line."""


# ---- the run ---------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A line of metrics.jsonl."""

    place: tuple[int, int]  # step, and which of the step's rows, from 0
    values: dict[str, float]  # under the names that sinks get
    digest: str  # of the line


def named_values(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a row of metrics.jsonl but its step; those of the layers as layers/NAME/INDEX."""
    names = VALID_NAMES if "val_loss" in row else TRAIN_NAMES
    values: dict[str, float] = {}

    def take(name: str, value: Any) -> None:
        if isinstance(value, bool):
            return
        if isinstance(value, (int, float)):
            values[name] = float(value)
        elif isinstance(value, dict):
            for key, inner in value.items():
                take(f"{name}/{key}", inner)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                take(f"{name}/{index}", inner)

    for key, value in row.items():
        if key != "step":
            take(names.get(key, key), value)
    return values


class Tail:
    """The complete lines of a file that grows, and may be replaced by a shorter one when its run is resumed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: Any = None
        self.identity: tuple[int, int] | None = None
        self.offset = 0

    def read(self) -> tuple[bool, list[bytes]]:
        """Whether the file was begun anew, and the lines since the last call."""
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False, []
        identity = (there.st_dev, there.st_ino)
        anew = identity != self.identity or there.st_size < self.offset
        if anew:
            if self.file is not None:
                self.file.close()
            self.file = open(self.path, "rb")
            self.identity, self.offset = identity, 0
        self.file.seek(self.offset)
        data = self.file.read()
        whole = data[: data.rfind(b"\n") + 1]  # the last line may be half-written
        self.offset += len(whole)
        return anew, whole.splitlines()


class Rows:
    """Numbers the rows of the lines that a Tail gives; what is no row is left out."""

    def __init__(self) -> None:
        self.last: tuple[int, int] | None = None

    def of(self, lines: Sequence[bytes]) -> Iterator[Row]:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            step = row.get("step") if isinstance(row, dict) else None
            if not isinstance(step, int) or isinstance(step, bool):
                continue
            again = self.last is not None and self.last[0] == step
            self.last = (step, self.last[1] + 1) if again and self.last else (step, 0)
            yield Row(self.last, named_values(row), hashlib.sha256(line).hexdigest())


def flat_config(path: Path) -> dict[str, Any]:
    """config.toml as {"model.layers": 12, ...}."""
    text = path.read_text(encoding="utf-8")
    try:
        import tomllib
    except ImportError:  # Python 3.10
        return _flat_lines(text)
    flat: dict[str, Any] = {}

    def take(prefix: str, table: dict[str, Any]) -> None:
        for key, value in table.items():
            if isinstance(value, dict):
                take(f"{prefix}{key}.", value)
            else:
                flat[prefix + key] = value

    take("", tomllib.loads(text))
    return flat


def _flat_lines(text: str) -> dict[str, Any]:
    """The same of what wavroute writes, one key a line; values that JSON doesn't read stay texts."""
    flat: dict[str, Any] = {}
    section = ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"\[([\w.]+)\]", line.strip()):
            section = heading[1] + "."
        elif pair := re.fullmatch(r"([\w-]+) = (.*)", line.strip()):
            try:
                flat[section + pair[1]] = json.loads(pair[2])
            except ValueError:
                flat[section + pair[1]] = pair[2]
    return flat


class Run:
    """A run folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.metrics = root / "metrics.jsonl"
        self.sinks = root / "sinks"
        if not (root / "config.toml").is_file():
            raise SinkError(f"expected a run folder with a config.toml, given {root}")
        self.config = flat_config(root / "config.toml")
        self.name = str(self.config.get("name") or root.resolve().name)

    def status(self) -> str:
        """As summary.json says: running, finished, stopped, diverged, failed; empty where it doesn't."""
        try:
            status = json.loads((self.root / "summary.json").read_text()).get("status")
        except (OSError, ValueError, AttributeError):
            return ""
        return status if isinstance(status, str) else ""

    def is_in_training(self) -> bool:
        """Whether a process holds the folder's lock."""
        holder = self.root / ".lock-holder"  # where the file system has no locks
        if holder.exists():
            words = holder.read_text(errors="replace").split()
            return bool(words) and words[0].isdigit() and Path("/proc", words[0]).exists()
        try:
            lock = os.open(self.root / ".lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(lock)
        return False


# ---- the sinks -------------------------------------------------------------------------------------------


class Sink:
    """One program. `state` is kept in state.json from start to start; empty for a run that is new to it."""

    #: Whether rows that were forwarded can be taken back from some step on.
    rewinds = False

    def __init__(self, run: Run, state: dict[str, Any], first_step: int) -> None:
        """`first_step`: of the rows that follow; rows from it on that are there already are taken back."""

    def log(self, step: int, values: dict[str, float]) -> None:
        raise NotImplementedError

    def flush(self) -> None:
        pass

    def close(self, status: str) -> None:
        pass


class TensorBoard(Sink):
    """Event files in RUN/sinks/tensorboard, written by the package tensorboard alone."""

    rewinds = True

    def __init__(self, run: Run, state: dict[str, Any], first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.event, self.summary = Event, Summary
        self.writer = EventFileWriter(str(run.sinks / "tensorboard"))
        # The reader drops what earlier files have from this step on.
        self.writer.add_event(Event(wall_time=time.time(), step=first_step, file_version="brain.Event:2"))
        self.writer.add_event(
            Event(wall_time=time.time(), step=first_step, session_log=SessionLog(status=SessionLog.START))
        )
        self._add_hyper_parameters(run.config)

    def _add_hyper_parameters(self, config: dict[str, Any]) -> None:
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2

        start = plugin_data_pb2.SessionStartInfo()
        for key, value in config.items():
            if isinstance(value, bool):
                start.hparams[key].bool_value = value
            elif isinstance(value, (int, float)):
                start.hparams[key].number_value = value
            else:
                start.hparams[key].string_value = str(value)
        content = plugin_data_pb2.HParamsPluginData(
            session_start_info=start, version=metadata.PLUGIN_DATA_VERSION
        )
        self._add(0, metadata.SESSION_START_INFO_TAG, metadata=metadata.create_summary_metadata(content))

    def _add(self, step: int, tag: str, **what: Any) -> None:
        summary = self.summary(value=[self.summary.Value(tag=tag, **what)])
        self.writer.add_event(self.event(wall_time=time.time(), step=step, summary=summary))

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._add(step, name, simple_value=value)

    def flush(self) -> None:
        self.writer.flush()

    def close(self, status: str) -> None:
        self.writer.close()


class WeightsAndBiases(Sink):
    """Offline, in RUN/sinks/wandb, for `wandb sync`; WANDB_MODE=online sends it at once."""

    def __init__(self, run: Run, state: dict[str, Any], first_step: int) -> None:
        for key, value in (("WANDB_SILENT", "true"), ("WANDB_CONSOLE", "off")):
            os.environ.setdefault(key, value)
        import wandb

        state.setdefault("id", uuid.uuid4().hex[:8])
        mode: Any = os.environ.get("WANDB_MODE") or "offline"
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "wavroute", name=run.name, id=state["id"],
            resume="allow", dir=str(run.sinks), mode=mode, config=run.config)  # fmt: skip

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def close(self, status: str) -> None:
        self.run.finish(exit_code=1 if status in ("failed", "diverged") else 0)


class Trackio(Sink):
    """A database in RUN/sinks/trackio, unless TRACKIO_DIR is set."""

    def __init__(self, run: Run, state: dict[str, Any], first_step: int) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(run.sinks.resolve() / "trackio"))
        import trackio

        # A run of the same name would be continued.
        state.setdefault("name", f"{run.name}-{uuid.uuid4().hex[:8]}")
        config = {key: value for key, value in run.config.items() if not key.startswith("_")}
        self.run = trackio.init(project=os.environ.get("TRACKIO_PROJECT") or "wavroute", name=state["name"],
                                config=config, resume="allow", embed=False)  # fmt: skip

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self, status: str) -> None:
        import trackio

        trackio.finish()


class MLflow(Sink):
    """Files in RUN/sinks/mlflow, unless MLFLOW_TRACKING_URI is set."""

    MOST_METRICS = 1000  # of one request
    MOST_PARAMETERS = 100
    LONGEST_VALUE = 6000
    STATUS = {"failed": "FAILED", "diverged": "FAILED", "stopped": "KILLED", "running": "KILLED"}

    def __init__(self, run: Run, state: dict[str, Any], first_step: int) -> None:
        os.environ.setdefault("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            uri = (run.sinks.resolve() / "mlflow").as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self.metric = Metric
        self.client = MlflowClient(tracking_uri=uri)
        self.waiting: list[Any] = []
        if "id" in state:
            self.client.update_run(state["id"], status="RUNNING")
            self.id = state["id"]
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "wavroute"
        found = self.client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self.client.create_experiment(name)
        self.id = state["id"] = self.client.create_run(experiment, run_name=run.name).info.run_id
        params = [Param(key, str(value)[: self.LONGEST_VALUE]) for key, value in run.config.items()]
        for begin in range(0, len(params), self.MOST_PARAMETERS):
            self.client.log_batch(self.id, params=params[begin : begin + self.MOST_PARAMETERS])

    def log(self, step: int, values: dict[str, float]) -> None:
        now = int(1000 * time.time())
        self.waiting += [self.metric(name, value, now, step) for name, value in values.items()]
        if len(self.waiting) >= self.MOST_METRICS:
            self.flush()

    def flush(self) -> None:
        while self.waiting:
            part, self.waiting = self.waiting[: self.MOST_METRICS], self.waiting[self.MOST_METRICS :]
            self.client.log_batch(self.id, metrics=part)

    def close(self, status: str) -> None:
        self.flush()
        self.client.set_terminated(self.id, status=self.STATUS.get(status, "FINISHED"))


SINKS: dict[str, type[Sink]] = {
    "tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio, "mlflow": MLflow,
}  # fmt: skip


# ---- forwarding ------------------------------------------------------------------------------------------


class Progress:
    """How far a sink has come, from state.json."""

    def __init__(self, kept: dict[str, Any]) -> None:
        place = kept.get("place")
        self.place: tuple[int, int] | None = (place[0], place[1]) if place else None
        self.digest: str = kept.get("digest", "")  # of the last row that was forwarded
        self.own: dict[str, Any] = dict(kept.get("own", {}))

    def kept(self) -> dict[str, Any]:
        return {"place": self.place, "digest": self.digest, "own": self.own}


class Forwarding:
    """Brings the rows of metrics.jsonl to all sinks. A sink that fails is given up, and `say` hears why."""

    def __init__(self, run: Run, names: Sequence[str], say: Callable[[str], None]) -> None:
        self.run = run
        self.say = say
        self.tail, self.rows = Tail(run.metrics), Rows()
        self.state_path = run.sinks / "state.json"
        self.first, self.progress = self._read_state(names)
        self.sinks: dict[str, Sink | None] = dict.fromkeys(names)  # None: not open yet
        self.failed: list[str] = []

    def _read_state(self, names: Sequence[str]) -> tuple[str, dict[str, Progress]]:
        try:
            state = json.loads(self.state_path.read_text())
            sinks = state["sinks"] if state.get("format") == FORMAT else {}
            kept = {name: Progress(sinks.get(name, {})) for name in names}
            self.others = {name: value for name, value in sinks.items() if name not in names}
            return str(state.get("first", "")), kept
        except (OSError, ValueError, AttributeError, TypeError, KeyError, IndexError):
            self.others = {}
            return "", {name: Progress({}) for name in names}

    def _keep_state(self) -> None:
        sinks = self.others | {name: progress.kept() for name, progress in self.progress.items()}
        text = json.dumps({"format": FORMAT, "first": self.first, "sinks": sinks}, indent=2) + "\n"
        self.run.sinks.mkdir(exist_ok=True)
        half = self.state_path.with_name(f".state-{os.getpid()}.json")
        with open(half, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(half, self.state_path)

    def _give_up(self, name: str, error: BaseException) -> None:
        words = " ".join(str(error).split()) or type(error).__name__
        self.say(f"{name} failed ({words[:300]})")
        self.failed.append(name)
        del self.sinks[name]

    def _each(self, action: Callable[[str, Sink], None]) -> None:
        for name, sink in list(self.sinks.items()):
            if sink is None:
                continue
            try:
                action(name, sink)
            except Exception as error:  # whatever a sink's package raises
                self._give_up(name, error)

    def _begin_anew(self, rows: list[Row]) -> None:
        """The file is another than that of the last call, or this is the first one."""
        if rows[0].digest != self.first:  # of another run in the same folder
            self._each(lambda _, sink: sink.close("stopped"))
            self.first = rows[0].digest
            self.others = {}
            self.progress = {name: Progress({}) for name in self.sinks}
            self.sinks = dict.fromkeys(self.sinks)
        digests = {row.digest for row in rows}
        for name in list(self.sinks):
            progress = self.progress[name]
            if SINKS[name].rewinds and progress.digest not in digests:
                # Rows that were forwarded are gone: all that is there is forwarded again.
                self._each(lambda each, sink, name=name: sink.close("stopped") if each == name else None)
                self.progress[name] = Progress({"own": progress.own})
                if name in self.sinks:
                    self.sinks[name] = None

    def _open(self, rows: list[Row]) -> None:
        for name in [name for name, sink in self.sinks.items() if sink is None]:
            progress = self.progress[name]
            if SINKS[name].rewinds and progress.place:
                # The rows of its last step may be half there: it gets them again.
                progress.place = (progress.place[0] - 1, sys.maxsize)
            first_step = progress.place[0] + 1 if progress.place else 0
            try:
                self.sinks[name] = SINKS[name](self.run, progress.own, first_step)
            except Exception as error:
                self._give_up(name, error)

    def step(self) -> None:
        """Forwards what has come since the last call."""
        anew, lines = self.tail.read()
        if anew:
            self.rows = Rows()
        rows = list(self.rows.of(lines))
        if not rows:
            if anew:
                self.tail.identity = None  # nothing there yet that says which run this is
            return
        if anew:
            self._begin_anew(rows)
        self._open(rows)

        def forward(name: str, sink: Sink) -> None:
            progress = self.progress[name]
            for row in rows:
                if progress.place is not None and row.place <= progress.place:
                    continue
                sink.log(row.place[0], row.values)
                progress.place, progress.digest = row.place, row.digest
            sink.flush()

        self._each(forward)
        self._keep_state()

    def close(self) -> None:
        self._each(lambda _, sink: sink.close(self.run.status()))


def follow(run: Run, names: Sequence[str], say: Callable[[str], None], has_ended: Callable[[], bool]) -> int:
    """Forwards until the run has ended and everything is forwarded, or until no sink is left. The exit
    status."""
    forwarding = Forwarding(run, names, say)
    ended = False
    while not ended and forwarding.sinks:
        ended = has_ended()  # before the file is read: what is written until then is forwarded
        forwarding.step()
    forwarding.close()
    return 1 if forwarding.failed else 0


def wait_for_trainer() -> bool:
    """Waits for an interval; true once the trainer has closed our standard input, or is gone."""
    readable, _, _ = select.select([0], [], [], INTERVAL)
    return bool(readable) and os.read(0, 1) == b""


# ---- the command -----------------------------------------------------------------------------------------


def known(name: str) -> str:
    if name in PACKAGES:
        return name
    near = difflib.get_close_matches(name.lower(), PACKAGES, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"the sinks: {', '.join(PACKAGES)}"
    raise argparse.ArgumentTypeError(f"expected a sink, given '{name}' ({hint})")


def missing_packages(names: Sequence[str]) -> list[str]:
    def is_there(module: str) -> bool:
        found = importlib.util.find_spec(module)
        return found is not None and found.origin is not None  # none: any folder of this name

    return [PACKAGES[name] for name in names if not is_there(name)]


def arguments_of(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m wavroute.sink", description="Forwards the metrics of a run to other programs.",
        epilog="A run in training is followed until it ends. What the sinks keep lies in RUN/sinks.",
    )  # fmt: skip
    parser.add_argument("run", nargs="?", metavar="RUN", type=Path, help="a run folder")
    parser.add_argument("--to", nargs="+", required=True, type=known, metavar="NAME",
                        help=", ".join(PACKAGES))  # fmt: skip
    parser.add_argument("--check", action="store_true",
                        help="only say which packages are missing, and exit with status 3 if any is")  # fmt: skip
    # Of the trainer: until standard input is closed; standard output has a line for each sink that fails.
    parser.add_argument("--with-trainer", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.run is None and not arguments.check:
        parser.error("expected a run folder, given none")
    arguments.to = list(dict.fromkeys(arguments.to))
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = arguments_of(argv)
    missing = missing_packages(arguments.to)
    if arguments.check:
        if missing:
            print(" ".join(missing))
        return EXTRA_MISSING if missing else 0
    try:
        if missing:
            raise SinkError(f"expected the packages of these sinks, given none of {' '.join(missing)}; "
                            f"hint: {sys.executable} -m pip install {' '.join(missing)}")  # fmt: skip
        run = Run(arguments.run)
    except (SinkError, OSError, ValueError) as error:
        print(f"wavroute.sink: {error}", file=sys.stderr)
        return 2
    if not arguments.with_trainer:

        def has_ended() -> bool:
            if not run.is_in_training():
                return True
            time.sleep(INTERVAL)
            return False

        return follow(run, arguments.to, lambda line: print(f"wavroute.sink: {line}", file=sys.stderr), has_ended)
    # Whoever stops the trainer means us last: it still has a checkpoint to write, and rows.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    words = os.dup(1)
    os.dup2(2, 1)  # what the sinks' packages print goes to the log

    def say(line: str) -> None:
        try:
            os.write(words, f"{line}\n".encode())
        except OSError:  # the trainer is gone
            pass
        print(line, file=sys.stderr)

    return follow(run, arguments.to, say, wait_for_trainer)


if __name__ == "__main__":
    sys.exit(main())
