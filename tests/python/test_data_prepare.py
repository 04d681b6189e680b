"""`wavroute data`: what it makes, refuses and goes on with; training on what it made."""

import contextlib
import fcntl
import gzip
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import paths
import pytest
from cli_tools import assert_error, assert_ok, draw_of_test, rows, sets, start, wait_until, weights
from cli_tools import write_project

WORDS = "the cat sat on a mat and then ran home to eat".split()


def texts(draw, count: int) -> list[str]:
    return [f"{i} " + " ".join(draw.choice(WORDS) for _ in range(draw.randrange(3, 40)))
            for i in range(count)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """a.txt and b.jsonl.gz with 400 documents in all."""
    folder = tmp_path_factory.mktemp("sources")
    documents = texts(draw_of_test(), 400)
    (folder / "a.txt").write_text("<|endoftext|>".join(documents[:200]))
    with gzip.open(folder / "b.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in documents[200:])
    return folder


@pytest.fixture(scope="module")
def prepared(sources):
    out = sources.parent / "prepared"
    assert_ok(paths.call("wavroute", "data", "prepare", sources, "--out", out, "--valid", 0.2))
    return out


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_folder_has_shards_tokenizer_and_manifest(prepared, sources):
    manifest = json.loads((prepared / "manifest.json").read_text())
    assert sorted(contents(prepared)) == ["manifest.json", "tokenizer.json", "train_0000.bin",
                                          "valid_0000.bin"]
    assert manifest["documents"] == 400
    assert manifest["duplicates"] == manifest["invalid_bytes"] == 0
    assert [source["documents"] for source in manifest["sources"]] == [200, 200]
    assert all(len(source["sha256"]) == 64 for source in manifest["sources"])
    assert manifest["tokens"] == manifest["bytes"]
    assert sum(split["documents"] for split in manifest["splits"].values()) == 400


def test_info_is_json_with_the_first_tokens(wavroute, prepared, sources):
    def info(path):
        return json.loads(assert_ok(wavroute("data", "info", path, "--json")))

    whole = info(prepared)
    assert whole["kind"] == "prepared" and whole["documents"] == 400
    assert bytes(whole["ids"]).decode() == whole["text"]
    shard = info(prepared / "train_0000.bin")
    assert shard["kind"] == "tokens" and shard["width"] == 16 and shard["tokenizer"] == "bytes"
    assert shard["ids"] == whole["ids"]
    packed = info(sources / "b.jsonl.gz")
    assert packed["kind"] == "json lines" and packed["packing"] == "gzip"
    assert packed["documents"] == 200
    text = assert_ok(wavroute("data", "info", sources / "a.txt"))
    assert "documents        200" in text


def test_standard_input_is_a_source(sources, prepared, tmp_path):
    command = [str(paths.program("wavroute")), "data", "prepare", "-", "--out", tmp_path / "out",
               "--valid", "0.2"]
    text = (sources / "a.txt").read_bytes()
    result = subprocess.run(command, input=text, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "out/manifest.json").read_text())["documents"] == 200
    # With --field it is JSON lines, packed or not.
    result = subprocess.run([*command[:3], "-", "--field", "text", "--out", tmp_path / "lines"],
                            input=(sources / "b.jsonl.gz").read_bytes(), capture_output=True)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "lines/manifest.json").read_text())["documents"] == 200


def test_a_killed_preparation_goes_on_to_the_same_bytes(tmp_path):
    draw = draw_of_test()
    documents = texts(draw, 60)
    with (tmp_path / "a.txt").open("w") as file:
        for i in range(4000):
            file.write("".join(f"{i} {text}\n" for text in documents))
    arguments = ["data", "prepare", tmp_path / "a.txt", "--separator", "\\n", "--valid", "0.1"]
    whole = tmp_path / "whole"
    assert_ok(paths.call("wavroute", *arguments, "--out", whole))
    out = tmp_path / "out"
    work = out / ".wavroute-prepare"
    for delay in (0.0, draw.uniform(0, 0.3), draw.uniform(0, 0.6)):
        process = start(*arguments, "--out", out, "--resume", "auto")
        if wait_until(lambda: (work / "state.json").exists(), process):
            try:
                process.wait(timeout=delay)
            except subprocess.TimeoutExpired:
                pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert_ok(paths.call("wavroute", *arguments, "--out", out, "--resume", "auto"))
    assert contents(out) == contents(whole)


def test_a_stopped_preparation_says_how_to_go_on(tmp_path):
    """A pipe that gives text without an end."""
    out = tmp_path / "out"
    process = start("data", "prepare", "-", "--out", out, stdin=subprocess.PIPE)
    for _ in range(30):
        process.stdin.write("some text <|endoftext|>" * 50000)
    assert wait_until(lambda: (out / ".wavroute-prepare/state.json").exists(), process)
    process.send_signal(signal.SIGTERM)
    # communicate() passes over a pipe that the process has closed.
    _, errors = process.communicate("some text <|endoftext|>" * 200000, timeout=60)
    assert process.returncode == 1, errors
    assert "--resume auto" in errors
    assert (out / ".wavroute-prepare/state.json").exists()


def processes(group: int) -> list[int]:
    """Processes of a group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(int(path.parent.name))
    return found


def unread(pipe) -> int:
    """Bytes in a pipe that its reader hasn't taken."""
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]


@pytest.mark.parametrize("whole_group", [False, True])  # True: as a terminal's Ctrl-C
@pytest.mark.parametrize("source", ["texts.parquet", "-"])
def test_a_stop_is_heard_while_a_source_keeps_it_waiting(source, whole_group, tmp_path):
    out, python = tmp_path / "out", tmp_path / "python"
    (tmp_path / "texts.parquet").write_text("read by nobody")
    python.write_text("#!/bin/sh\nexec sleep 100\n")
    python.chmod(0o755)
    for command in (["prepare", source, "--out", out],
                    ["train-tokenizer", source, "--vocab", 300, "--out", tmp_path / "t.json"]):
        process = subprocess.Popen(
            [str(paths.program("wavroute")), "data", *map(str, command)], cwd=tmp_path, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, env=os.environ | {"WAVROUTE_PYTHON": str(python)})
        if source == "-":
            process.stdin.write("some text")
            process.stdin.flush()
            assert wait_until(lambda: unread(process.stdin) == 0, process)
        else:
            assert wait_until(lambda: len(processes(process.pid)) == 2, process)
        if whole_group:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()
        process.wait(timeout=10)
        errors = process.stderr.read()
        process.communicate()
        assert process.returncode == 1 and errors.startswith("stopped; "), errors
        assert processes(process.pid) == []
    assert list(tmp_path.glob("t.json")) == []


def test_what_is_made_is_no_source(tmp_path):
    (tmp_path / "a.txt").write_text("one<|endoftext|>two")
    arguments = ["data", "prepare", tmp_path, "--valid", 0, "--out"]
    corpus = tmp_path / "corpus"
    assert_ok(paths.call("wavroute", *arguments, corpus))
    before = contents(corpus)
    assert_ok(paths.call("wavroute", *arguments, corpus, "--resume", "auto"))
    assert contents(corpus) == before
    assert_error(paths.call("wavroute", *arguments, tmp_path), "sources outside", "another --out")
    # A tokenizer that lies among its texts, and a text that it would replace.
    learn = ["data", "train-tokenizer", "--vocab", 257, "--out"]
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("one two")
    for _ in range(2):
        assert_ok(paths.call("wavroute", *learn, texts / "tokenizer.json", texts))
    assert_error(paths.call("wavroute", *learn, texts / "a.txt", texts / "a.txt"), "sources outside")
    assert (texts / "a.txt").read_text() == "one two"


def test_a_terminal_gets_a_bar_and_a_pipe_none(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("some text <|endoftext|>" * 200000)
    result = paths.call("wavroute", "data", "prepare", text, "--out", tmp_path / "piped")
    assert_ok(result)
    assert "\x1b" not in result.stderr and "\r" not in result.stderr
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(paths.program("wavroute")), "data", "prepare", str(text), "--out",
         str(tmp_path / "shown")], stdout=subprocess.DEVNULL, stderr=theirs,
        env=os.environ | {"TERM": "xterm", "NO_COLOR": "", "OMP_NUM_THREADS": "1"})
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(terminal, 4096):
            shown += part
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    assert b"\r\x1b[K" in shown and b"read " in shown and b" of 4.4 MiB" in shown
    assert contents(tmp_path / "shown") == contents(tmp_path / "piped")


@pytest.mark.parametrize("arguments, words", [
    (["--tokenizer", "none.json"], ["none.json"]),
    (["--valid", "1"], ["a share from 0 to below 1", "'1'"]),
    (["--valid", "x"], ["'x'"]),
    (["--seed", "-1"], ["-1"]),
    (["--recipe", "tinystory"], ["a recipe", "tinystories"]),
    (["--recipe", "text8"], ["the files of text8"]),
    (["--recipe", "wikitext-103"], ["wiki.train.tokens"]),
    (["--separator", "\\x"], ["behind a backslash"]),
    (["--field", "story"], ["a field \"story\"", "'text'"]),
    (["--resume", "3"], ["--resume auto"]),
    (["--threads", "-1"], ["-1"]),
    (["nothing.txt"], ["nothing.txt"]),
])
def test_wrong_input_is_refused_and_leaves_nothing(wavroute, sources, tmp_path, arguments, words):
    out = tmp_path / "out"
    assert_error(wavroute("data", "prepare", sources, "--out", out, *arguments), *words)
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_leaves_no_folder_on_the_way(wavroute, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": 3}\n')
    out = tmp_path / "new" / "deep" / "out"
    assert_error(wavroute("data", "prepare", tmp_path / "a.jsonl", "--out", out), "a.jsonl:2")
    assert not (tmp_path / "new").exists()
    (tmp_path / "new").mkdir()
    assert_error(wavroute("data", "prepare", tmp_path / "a.jsonl", "--out", tmp_path / "new"))
    assert (tmp_path / "new").exists()  # it is the user's
    assert_error(wavroute("data", "prepare", tmp_path / "a.jsonl", "--out", ""), "given ''")
    assert_error(wavroute("data", "prepare", "", "--out", out), "given no ''")


def test_an_output_that_is_a_folder_is_refused_before_anything_is_read(wavroute, tmp_path):
    for out in (tmp_path, ""):
        assert_error(wavroute("data", "train-tokenizer", "none.txt", "--vocab", 300, "--out", out),
                     "a file to write")


def test_info_takes_a_tokenizer_for_tokens_alone(wavroute, prepared, sources):
    for path in (prepared, sources / "a.txt"):
        assert_error(wavroute("data", "info", path, "--tokenizer", "none.json"), "a file of tokens")


def test_a_folder_of_somebody_else_is_left_alone(wavroute, sources, prepared, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    assert_error(wavroute("data", "prepare", sources, "--out", tmp_path), "mine.txt")
    assert sorted(contents(tmp_path)) == ["mine.txt"]
    before = contents(prepared)
    assert_error(wavroute("data", "prepare", sources, "--out", prepared), "prepared text")
    assert contents(prepared) == before


def test_training_on_a_folder_is_training_on_its_tokens(prepared, tmp_path):
    project = write_project(tmp_path)
    folder, files = tmp_path / "folder", tmp_path / "files"
    values = sets(data__tokenizer="bytes", train__steps=2, train__eval_every=1)
    assert_ok(paths.call("wavroute", "train", project, "--out", folder, *values,
                         *sets(data__train=prepared, data__valid='""')))
    assert_ok(paths.call("wavroute", "train", project, "--out", files, *values,
                         *sets(data__train=prepared / "train_0000.bin",
                               data__valid=prepared / "valid_0000.bin")))
    assert rows(folder) == rows(files)
    assert weights(folder, 2) == weights(files, 2)
    # An evaluation takes the validation split.
    evaluated = json.loads(assert_ok(paths.call("wavroute", "eval", folder, "--data", prepared,
                                                "--tokens", 64, "--json")))
    assert evaluated["loss"] == pytest.approx(rows(folder)[-1]["val_loss"], rel=1e-6)
    # A resume goes on where the folder has been moved to.
    moved = tmp_path / "moved"
    os.rename(prepared, moved)
    try:
        assert_ok(paths.call("wavroute", "train", project, "--out", folder, "--resume", "auto",
                             *sets(data__tokenizer="bytes", train__steps=3, train__eval_every=1,
                                   data__train=moved, data__valid='""')))
    finally:
        os.rename(moved, prepared)


@pytest.fixture(scope="module")
def unknown_run(tmp_path_factory):
    """A run whose vocabulary has a token for unknown characters."""
    project = write_project(tmp_path_factory.mktemp("unknown"))
    run = project.parent / "run"
    values = sets(train__steps=2, data__unknown="unk")
    assert_ok(paths.call("wavroute", "train", project, "--out", run, *values))
    return run


def test_the_token_for_unknown_characters_is_that_of_tokenizers(unknown_run):
    tokenizers = pytest.importorskip("tokenizers")
    path = unknown_run / "checkpoints/step_2/tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    vocabulary = tokenizer.get_vocab()
    text = "the \u0416!\ufffdcat"
    assert tokenizer.encode(text).ids == [vocabulary.get(c, vocabulary["\ufffd"]) for c in text]


def test_characters_of_other_texts_are_refused_left_out_or_replaced(unknown_run, tmp_path):
    run, project = unknown_run, write_project(tmp_path)
    tokenizer = json.loads((run / "checkpoints/step_2/tokenizer.json").read_text())
    assert tokenizer["model"]["unk_token"] == "\ufffd"
    other = tmp_path / "other.txt"
    other.write_text("the cat XY sat")

    def evaluate(*more):
        return paths.call("wavroute", "eval", run, "--data", other, "--json", *more)

    replaced, dropped = evaluate(), evaluate("--unknown", "drop")
    assert json.loads(assert_ok(replaced))["tokens"] == len("the cat XY sat") - 1
    assert json.loads(assert_ok(dropped))["tokens"] == len("the cat  sat") - 1
    assert "2 unknown characters" in replaced.stderr and "2 unknown characters" in dropped.stderr
    # A file with a tokenizer, relative to the configuration's file; known by its content on resume.
    named = tmp_path / "named"
    project.write_text(project.read_text().replace('tokenizer = "chars"', 'tokenizer = "t.json"'))
    (tmp_path / "t.json").write_text(json.dumps(tokenizer))
    assert_ok(paths.call("wavroute", "train", project, "--out", named, *sets(train__steps=2)))
    assert f'tokenizer = "{tmp_path / "t.json"}"' in (named / "config.toml").read_text()
    tokenizer["model"]["vocab"]["Z"] = len(tokenizer["model"]["vocab"])
    (tmp_path / "t.json").write_text(json.dumps(tokenizer))
    assert_error(paths.call("wavroute", "train", project, "--out", named, "--resume", "auto",
                            *sets(train__steps=3)))


@pytest.fixture
def parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "texts.parquet"
    documents = texts(draw_of_test(), 700) + [None, "gr\u00fcn"]
    table = pyarrow.table({"text": documents, "id": list(range(702))})
    parquet.write_table(table, path, row_group_size=100)
    return path


def test_parquet_is_read_by_the_users_python(parquet, tmp_path):
    here = {"WAVROUTE_PYTHON": sys.executable}

    def prepare(out, *more, env=here):
        return paths.call("wavroute", "data", "prepare", parquet, "--out", tmp_path / out, *more,
                          env=env)

    assert_ok(prepare("out"))
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["documents"] == 701 and manifest["empty"] == 1
    assert_error(prepare("b", "--field", "story"), 'a column "story"', "text, id")
    assert_error(prepare("b", "--field", "id"), "a column of int64")
    assert_error(prepare("b", env={"WAVROUTE_PYTHON": "/nowhere/python"}), "pyarrow", "/nowhere")
    parquet.write_bytes(parquet.read_bytes()[:500])
    assert_error(prepare("b"), "a Parquet file")
    assert not (tmp_path / "b").exists()


def test_a_python_without_pyarrow_is_named(parquet, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    python.chmod(0o755)
    result = paths.call("wavroute", "data", "prepare", parquet, "--out", tmp_path / "out",
                        env={"WAVROUTE_PYTHON": str(python)})
    assert_error(result, "a Python with pyarrow", "pip install pyarrow")
