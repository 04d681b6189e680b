"""The standard streams: a result that can't be written is an error, a reader that goes away is not,
and no control character of a name or a text reaches a terminal."""

import os
import pty
import re
import subprocess

import paths
import pytest
from cli_tools import assert_error, assert_ok, sets, start, write_project

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all but line ends and tabs


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("output"))


@pytest.fixture(scope="module")
def run(project):
    """A model of bytes: it may generate anything."""
    out = project.parent / "run"
    values = sets(data__tokenizer="bytes", train__steps=1, train__eval_every=1)
    assert_ok(paths.call("wavroute", "train", project, "--out", out, "-q", *values))
    return out


def words(arguments, project, run):
    names = {"RUN": run, "CONFIG": project, "VALID": project.parent / "valid.txt"}
    return [str(names.get(word, word)) for word in arguments]


RESULTS = [
    ["eval", "RUN", "--data", "VALID"],
    ["eval", "RUN", "--data", "VALID", "--json"],
    ["generate", "RUN", "--prompt", "the", "-n", "3"],
    ["generate", "RUN", "--prompt", "the", "-n", "3", "--json"],
    ["report", "RUN"],
    ["config", "list"],
    ["config", "show", "CONFIG", "--json"],
    ["config", "check", "CONFIG"],
    ["train", "CONFIG", "--dry-run"],
    ["doctor", "--json"],
    ["eval", "--help"],
    ["--version"],
]


@pytest.mark.parametrize("arguments", RESULTS, ids=" ".join)
def test_a_result_that_can_not_be_written_is_a_failure(project, run, arguments):
    command = [str(paths.program("wavroute")), *words(arguments, project, run)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert_error(done, "standard output", "No space left", code=1)
    assert done.stderr.count("\n") <= 3


def test_one_file_alone_writes_to_the_standard_streams():
    """What it does about full disks, closed pipes and control characters holds for all then."""
    folders = [paths.REPOSITORY / name for name in ("src", "apps")]
    files = [f for folder in folders for f in folder.rglob("*") if f.suffix in (".cpp", ".h")]
    other_ways = re.compile(r"std::c(out|err|log)\b|\b(v?f?printf|f?puts|fwrite)\(|fmt::print\(")
    found = [f.name for f in files if other_ways.search(f.read_text())]
    assert found == ["output.cpp"]


def test_a_file_beyond_the_limit_on_sizes_is_a_failure_in_words(run, tmp_path):
    command = [paths.program("wavroute"), "report", run, "-o", tmp_path / "page.html"]
    done = subprocess.run(["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *command],
                          capture_output=True, text=True, timeout=120)
    assert_error(done, tmp_path / "page.html", "ulimit -f", code=1)
    assert not any(tmp_path.iterdir())


def test_a_result_for_a_closed_stream_is_a_failure(project, run):
    command = words(["config", "list"], project, run)
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", paths.program("wavroute"), *command],
                          capture_output=True, text=True, timeout=120)
    assert_error(done, "standard output", code=1)


def test_a_reader_that_has_seen_enough_ends_the_stream_silently(run):
    process = start("generate", run, "--prompt", "the", "-n", 100000)
    assert process.stdout.read(3) == "the"
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    said = process.stderr.read().splitlines()
    assert all("more than the 16 that the model was trained with" in line for line in said), said


def test_a_limit_on_the_size_of_files_is_an_error_with_words(tmp_path):
    command = ["sh", "-c", 'ulimit -f 0; exec "$@" > out', "sh", paths.program("wavroute")]
    done = subprocess.run([*command, "config", "list"], cwd=tmp_path, capture_output=True, text=True,
                          timeout=60)
    assert_error(done, "standard output", "File too large", code=1)


def test_closed_streams_land_in_no_file(project, tmp_path):
    out = tmp_path / "run"
    command = ["train", project, "--out", out, *sets(train__steps=2)]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", paths.program("wavroute"),
                           *map(str, command)], timeout=120)
    assert done.returncode == 0
    assert (out / "report.html").exists()
    lock = (out / ".lock").read_bytes()
    assert b"step" not in lock and b"loss" not in lock, lock


def on_a_terminal(*arguments: object, **variables: str) -> str:
    """What the command wrote, both streams on a terminal."""
    own, other = pty.openpty()
    process = subprocess.Popen([str(paths.program("wavroute")), *map(str, arguments)], stdout=other,
                               stderr=other, env=os.environ | {"OMP_NUM_THREADS": "1"} | variables)
    os.close(other)
    content = b""
    while True:
        try:
            piece = os.read(own, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        content += piece
    os.close(own)
    assert process.wait(timeout=60) == 0, content
    return content.decode()


def test_generated_text_is_escaped_on_a_terminal_and_raw_in_a_pipe(wavroute, run):
    sampling = ["--prompt", "a\x1b[31mb\x9b\tc", "-n", "40", "--temperature", "5", "--seed", "3"]
    shown = on_a_terminal("generate", run, *sampling).replace("\r\n", "\n")
    assert not CONTROL.search(shown), shown
    assert "\\x1b[31mb" in shown and "\tc" in shown
    piped = assert_ok(wavroute("generate", run, *sampling))
    assert piped.startswith("a\x1b[31mb\x9b\tc") and CONTROL.search(piped[10:])


def test_names_are_escaped_in_messages(wavroute, run, tmp_path):
    for arguments in (["eval", run, "--data", tmp_path / "a\x1b[31m\x9b"],
                      ["eval", tmp_path / "a\x1b[31m", "--data", "x"],
                      ["generate", run, "--prompt", "the", "--temperature", "\x1b[2J"],
                      ["\x1b[2J"]):
        done = wavroute(*arguments)
        assert done.returncode == 2
        assert not CONTROL.search(done.stderr), done.stderr
        assert "\\x1b" in done.stderr


def test_names_are_escaped_in_what_a_training_says(wavroute, project, tmp_path):
    text, out = tmp_path / "a\x1b[31mb.txt", tmp_path / "run"
    text.write_text((project.parent / "train.txt").read_text())
    values = sets(data__train=text, data__valid=text, train__steps=1)
    done = wavroute("train", project, "--out", out, *values)
    said = assert_ok(done) + done.stderr + (out / "train.log").read_text()
    assert "\\x1b[31mb.txt" in said and not CONTROL.search(said), said


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"},
                                       {"TERM": ""}, {"TERM": "xterm"}], ids=str)
def test_escape_codes_go_only_to_a_terminal_that_takes_them(project, tmp_path, variables):
    steps = sets(train__steps=2, train__log_every=1)
    text = on_a_terminal("train", project, "--out", tmp_path / "run", *steps,
                         **({"NO_COLOR": ""} | variables))
    assert "step" in text
    assert ("\x1b[" in text) == (variables == {"TERM": "xterm"})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["eval", "RUN", "--data", "VALID", "--tokens", "-5"], ["--tokens", "at least 0", "-5"]),
        (["eval", "RUN", "--data", "VALID", "--batch", "0"], ["--batch", "at least 1", "'0'"]),
        (["eval", "RUN", "--data", "VALID", "--context", "-1"], ["--context", "at least 0", "-1"]),
        (["eval", "RUN", "--data", "VALID", "--prompt", "-1"], ["--prompt", "at least 0", "-1"]),
        (["eval", "RUN", "--data", "VALID", "--threads", "-1"], ["--threads", "-1"]),
        (["eval", "RUN", "--data", "VALID", "--logits", "/"], ["/", "directory"]),
        (["eval", "RUN", "--data", "/"], ["/"]),
        (["eval", "VALID", "--data", "VALID"], ["valid.txt", "a file"]),
        (["generate", "RUN", "--prompt", "the", "--seed", "-1"], ["--seed", "at least 0", "-1"]),
        (["generate", "RUN", "--prompt", "the", "-n", "many"], ["--tokens", "many"]),
        (["generate", "RUN", "--prompt", "the", "-n", "1000000000000"],
         ["--tokens 1000000000000", "free", "fits"]),
        (["generate", "RUN", "--prompt", "the", "-n", "9223372036854775807"], ["--tokens", "free"]),
        (["bench", "op", "--tokens", "-1"], ["--tokens", "from 1", "-1"]),
        (["train", "CONFIG", "--dry-run", "--set", "model.layers=1000000000"], ["model.layers"]),
        (["train", "CONFIG", "--dry-run", "--set", "model.width=2000000000"], ["model.width"]),
    ],
    ids=lambda value: " ".join(value[2:]),
)
def test_a_value_beyond_its_range_is_refused_in_a_short_line(wavroute, project, run, arguments,
                                                             expected):
    done = wavroute(*words(arguments, project, run))
    assert_error(done, *expected)
    assert max(map(len, done.stderr.splitlines())) < 300, done.stderr


def test_memory_that_is_not_there_is_named_with_its_size():
    command = 'ulimit -v 16000000; exec "$@"'
    done = subprocess.run(["sh", "-c", command, "sh", paths.program("wavroute"), "bench", "op",
                           "norm", "--tokens", "1000000000", "--width", "256", "--precision",
                           "fp32", "--rounds", "1"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    message = done.stderr.split("wavroute: ")[1]
    assert "not enough memory" in message and "GiB" in message and "needs less" in message, message


def test_help_lines_begin_with_a_capital(wavroute):
    commands = ["", "bench", "bench step", "bench op", "bench peak", "doctor", "eval", "generate",
                "train", "compare", "config", "report"]
    for command in map(str.split, commands):
        lines = assert_ok(wavroute(*command, "--help")).split("Operators:")[0].splitlines()
        told = [line[30:] for line in lines if line[28:30] == "  " and line[30:31].strip()]
        assert told
        for line in [lines[0], *told]:
            is_form = "=" in line.split()[0]  # section.key=value
            assert is_form or not line[0].islower(), (command, line)


def test_every_argument_has_a_description_and_stands_in_capitals_where_it_has_no_dashes(wavroute):
    for command in map(str.split, ["bench step", "bench op", "bench peak", "doctor", "eval",
                                   "generate", "train", "compare", "config show", "report"]):
        page = assert_ok(wavroute(*command, "--help")).split("Operators:")[0]
        words = re.findall(r"^ {2}(\S.*)$", page, re.MULTILINE)  # one line or two for each argument
        for line in words:
            name, *told = re.split(r"  +", line, maxsplit=1)
            first = name.split()[0].rstrip(",")
            assert first.startswith("-") or first.isupper(), (command, line)
            assert told or page.split(line + "\n")[1].startswith(" " * 30), (command, line)
