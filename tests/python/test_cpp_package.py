"""The C++ package: an installed tree, moved elsewhere, and programs that are built with it."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paths
import pytest
from cli_tools import assert_ok, write_project
from paths import REPOSITORY

CMAKE = shutil.which("cmake")


def build_folder() -> Path:
    return paths.program("wavroute").parent.parent


def cached(name: str) -> str:
    text = (build_folder() / "CMakeCache.txt").read_text()
    return re.search(rf"^{name}:\w+=(.*)$", text, re.MULTILINE)[1]


def run(*words: object, **options: object) -> subprocess.CompletedProcess:
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory) -> Path:
    """An installation under DESTDIR, moved from there: neither place is the one that was named."""
    if not CMAKE or not (build_folder() / "python" / "wavroute" / "bin" / "wavroute").is_file():
        pytest.skip("CMake, or what it would install, is not there")
    folder = tmp_path_factory.mktemp("installed")
    assert_ok(run(CMAKE, "--install", build_folder(), "--prefix", "/opt/somewhere",
                  env=os.environ | {"DESTDIR": str(folder / "stage")}))
    (folder / "stage" / "opt" / "somewhere").rename(folder / "moved")
    shutil.rmtree(folder / "stage")
    return folder / "moved"


def configure(source: Path, build: Path, *options: str) -> subprocess.CompletedProcess:
    compiler = cached("CMAKE_CXX_COMPILER")
    return run(CMAKE, "-S", source, "-B", build, "-G", "Ninja", f"-DCMAKE_CXX_COMPILER={compiler}",
               *options, env={key: value for key, value in os.environ.items() if key != "WAVROUTE_PYTHON"})


@pytest.fixture(scope="module")
def examples(prefix, tmp_path_factory) -> Path:
    """The programs of examples/cpp, built with the installed tree."""
    build = tmp_path_factory.mktemp("examples")
    assert_ok(configure(REPOSITORY / "examples" / "cpp", build, f"-DCMAKE_PREFIX_PATH={prefix}",
                        "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror"))
    assert_ok(run(CMAKE, "--build", build, "-j2"))
    return build


def alone(program: Path, *words: object) -> subprocess.CompletedProcess:
    return run(program, *words, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_the_examples_train_a_model_and_write_its_text(examples, wavroute, tmp_path):
    write_project(tmp_path)
    text = tmp_path / "train.txt"
    shown = assert_ok(alone(examples / "train", text, tmp_path / "model", "wav", 60))
    losses = [float(line.split()[1]) for line in shown.splitlines()]
    assert 4.0 < losses[0] < 7.0 and losses[-1] < 0.6 * losses[0], losses
    written = assert_ok(alone(examples / "generate", tmp_path / "model", "the cat", 20))
    # The command reads the same model and writes the same text.
    theirs = assert_ok(wavroute("generate", tmp_path / "model", "--prompt", "the cat", "-n", 20,
                                "--temperature", 0, "--precision", "fp32"))  # fmt: skip
    assert written == theirs and len(written) > 8


def test_the_examples_say_what_is_wrong(examples, tmp_path):
    done = alone(examples / "generate", tmp_path / "nothing", "the")
    assert done.returncode == 2 and "nothing" in done.stderr and "hint:" in done.stderr
    (tmp_path / "text.txt").write_text("a text" * 50)
    (tmp_path / "model").mkdir()
    done = alone(examples / "train", tmp_path / "text.txt", tmp_path / "model", "wav", 1)
    assert done.returncode == 2 and "a folder that isn't there yet" in done.stderr, done.stderr


def test_every_installed_header_compiles_alone(prefix, tmp_path):
    headers = sorted((prefix / "include" / "wavroute").iterdir())
    assert {path.name for path in headers} == set(os.listdir(REPOSITORY / "include" / "wavroute"))
    library = prefix / cached("CMAKE_INSTALL_LIBDIR") / "libwavroute.so"
    torch = Path(re.search(r"RUNPATH.*:(.*?/torch)/lib\]", run("readelf", "-dW", library).stdout)[1])

    def compiled(header: Path) -> str:
        source = tmp_path / f"{header.stem}.cpp"
        source.write_text(f"#include <wavroute/{header.name}>\n")
        return run(cached("CMAKE_CXX_COMPILER"), "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror",
                   "-I", prefix / "include", "-isystem", torch / "include", source).stderr  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        assert "".join(pool.map(compiled, headers)) == ""


def flags_of(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))


def test_the_installed_command_runs_with_its_manual_and_completion(prefix, wavroute):
    command = prefix / "bin" / "wavroute"
    assert assert_ok(alone(command, "--version")) == assert_ok(wavroute("--version"))
    assert (prefix / "share" / "doc" / "wavroute" / "LICENSE").read_text() == (
        REPOSITORY / "LICENSE").read_text()  # fmt: skip
    script = prefix / "share" / "bash-completion" / "completions" / "wavroute"
    assert script.read_text() == assert_ok(wavroute("completion", "bash"))
    commands = re.findall(r"^  (\w+) ", assert_ok(wavroute("--help")).split("Subcommands:")[1], re.MULTILINE)
    pages = prefix / "share" / "man" / "man1"
    assert len(commands) > 10
    assert {path.name for path in pages.iterdir()} == {"wavroute.1"} | {
        f"wavroute-{name}.1" for name in commands}  # fmt: skip
    for name in ("generate", "data"):
        below = {"data": ["prepare", "train-tokenizer"]}.get(name, [])
        flags = set().union(*(flags_of(assert_ok(wavroute(name, *words, "--help")))
                              for words in [[], *([word] for word in below)]))
        page = (pages / f"wavroute-{name}.1").read_text().replace("\\-", "-").replace("\\fB", "")
        assert flags <= flags_of(page), flags - flags_of(page)


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not there")
def test_the_pages_of_the_manual_are_sound(prefix):
    for page in sorted((prefix / "share" / "man" / "man1").iterdir()):
        done = run("groff", "-man", "-Tutf8", "-ww", "-Wbreak", "-P-cbou", page)
        assert (done.returncode, done.stderr) == (0, ""), page
        assert "NAME" in done.stdout and "wavroute" in done.stdout


CONSUMER = """cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES CXX)
{take}
file(WRITE ${{PROJECT_BINARY_DIR}}/consumer.cpp "int main() {{}}")
add_executable(consumer ${{PROJECT_BINARY_DIR}}/consumer.cpp)
target_link_libraries(consumer PRIVATE wavroute::wavroute)
add_custom_target(version COMMAND wavroute::command --version)
"""


def test_the_sources_can_be_a_part_of_another_project(tmp_path):
    if not CMAKE:
        pytest.skip("CMake is not there")
    take = f"add_subdirectory({REPOSITORY} wavroute)"
    (tmp_path / "CMakeLists.txt").write_text(CONSUMER.format(take=take))
    build = tmp_path / "build"
    assert_ok(configure(tmp_path, build, f"-DWAVROUTE_PYTHON={cached('WAVROUTE_PYTHON')}"))
    ninja = cached("CMAKE_MAKE_PROGRAM")
    inputs = assert_ok(run(ninja, "-C", build, "-t", "query", "consumer"))
    assert "libwavroute.so" in inputs
    everything = assert_ok(run(ninja, "-C", build, "-t", "targets", "all"))
    assert "bin/wavroute:" in everything and "_tests:" not in everything
    assert not (build / "bin").exists()  # programs of the project stand where it wants them
    installed = run(CMAKE, "--install", build, "--prefix", tmp_path / "prefix")
    assert installed.returncode == 0 and not (tmp_path / "prefix").exists(), installed.stderr


def test_another_torch_is_named_when_the_package_is_looked_for(prefix, tmp_path):
    """By an interpreter that answers as one with another torch would."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {tmp_path}\necho 2.12.1\necho\n")
    python.chmod(0o755)
    take = "find_package(wavroute 0.1 REQUIRED)"
    (tmp_path / "CMakeLists.txt").write_text(CONSUMER.format(take=take))
    done = configure(tmp_path, tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}",
                     f"-DWAVROUTE_PYTHON={python}")  # fmt: skip
    assert done.returncode != 0
    said = " ".join(done.stderr.split())
    assert "expected torch 2.13.0, which wavroute was built with, given 2.12.1" in said, said
