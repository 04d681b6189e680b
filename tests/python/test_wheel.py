"""The Python package as a wheel: what it is made of, and that it works where only torch is installed.

The wheel is packed from what is built already, by the project's own pyproject.toml."""

import email
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import paths
import pytest
from cli_tools import assert_error, assert_ok, sets, write_project

torch = pytest.importorskip("torch")
pytest.importorskip("scikit_build_core")

FAMILY = re.compile(r"libtorch\w*|libc10\w*|libgomp\S*|libstdc\+\+|libgcc_s|libm|libc|ld-linux[\w-]*")


def output(*words: object, **options: object) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    build = paths.program("wavroute").parent.parent
    if not (build / "python" / "wavroute" / "bin" / "wavroute").is_file():
        pytest.skip("the Python package is not built")
    folder = tmp_path_factory.mktemp("wheel")
    settings = [f"cmake.source-dir={paths.REPOSITORY}/tests/python/built", f"build-dir={folder}/build",
                f"cmake.define.BUILT={build}"]
    output(sys.executable, "-m", "pip", "wheel", paths.REPOSITORY, "--no-deps", "--no-build-isolation",
           "--no-index", "--no-cache-dir", "--disable-pip-version-check", "-w", folder,
           *[word for setting in settings for word in ("-C", setting)])
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel, and torch and what torch asks for, as links."""
    folder = tmp_path_factory.mktemp("clean") / "env"
    output(sys.executable, "-m", "venv", "--without-pip", folder)
    output(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--no-deps",
           "--no-index", "--disable-pip-version-check", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    theirs = Path(importlib.util.find_spec("torch").origin).parents[1]
    for entry in theirs.iterdir():
        if entry.suffix != ".pth" and not (packages / entry.name).exists():
            (packages / entry.name).symlink_to(entry)
    return packages


def python_of(packages: Path) -> Path:
    return packages.parents[2] / "bin" / "python"


def in_clean(packages: Path, *words: object, **values: str) -> subprocess.CompletedProcess:
    """A program of the environment, which the settings of the one around it don't reach."""
    kept = {key: value for key, value in os.environ.items()
            if key not in ("PYTHONPATH", "LD_LIBRARY_PATH", "WAVROUTE_PYTHON", "VIRTUAL_ENV")}
    return subprocess.run([str(python_of(packages).parent / str(words[0])), *map(str, words[1:])],
                          capture_output=True, text=True, timeout=120, cwd=packages.parents[2],
                          env=kept | {"OMP_NUM_THREADS": "1"} | values)  # fmt: skip


def binaries(packages: Path) -> list[Path]:
    (library,) = (packages / "wavroute").glob("libwavroute.so*")
    return [library, packages / "wavroute" / "bin" / "wavroute"]


def test_the_wheel_is_for_every_python_and_has_all_that_belongs_in_it_and_no_more(wheel):
    version = re.search(r"^project\(wavroute VERSION (\S+)",
                        (paths.REPOSITORY / "CMakeLists.txt").read_text(), re.MULTILINE)[1]
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name == f"wavroute-{version}-py3-none-{platform}.whl"
    archive = zipfile.ZipFile(wheel)
    info = f"wavroute-{version}.dist-info"
    names = {name for name in archive.namelist() if not name.startswith(info)}
    sources = paths.REPOSITORY / "python"
    ours = {str(path.relative_to(sources)) for path in (sources / "wavroute").rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}
    minor = version.rpartition(".")[0]
    built = {"wavroute/_build.py", "wavroute/bin/wavroute", f"wavroute/libwavroute.so.{minor}"}
    assert names == ours | built
    assert "wavroute/py.typed" in names and f"{info}/licenses/LICENSE" in archive.namelist()
    metadata = email.message_from_string(archive.read(f"{info}/METADATA").decode())
    assert metadata["Version"] == version
    needs = metadata.get_all("Requires-Dist")
    assert [need for need in needs if "extra" not in need] == ["torch==2.13.0"]
    assert {"tensorboard", "wandb", "trackio", "mlflow"} <= set(metadata.get_all("Provides-Extra"))


def test_the_wheel_needs_the_libraries_of_torch_and_of_c_alone_and_finds_torch_beside_it(clean):
    for binary in binaries(clean):
        dynamic = output("readelf", "-dW", binary)
        needed = re.findall(r"\(NEEDED\).*\[(.*?)\]", dynamic)
        others = [name for name in needed if name != binaries(clean)[0].name
                  and not FAMILY.fullmatch(name.partition(".so")[0])]
        assert needed and others == [], binary
        searched = re.findall(r"\((?:RUNPATH|RPATH)\).*\[(.*?)\]", dynamic)
        assert searched and all(path.startswith("$ORIGIN/") for path in searched[0].split(":")), searched


def test_the_library_asks_for_no_name_of_cpython_and_exports_its_own_alone(clean):
    library = binaries(clean)[0]
    wanted = re.findall(r" U (\S+)", output("nm", "-D", library))
    assert len(wanted) > 100
    assert [name for name in wanted if re.match(r"_?Py[A-Z_]", name)] == []
    exported = re.findall(r"^\w+ [A-Zuv] (.*)$", output("nm", "-DC", "--defined-only", library), re.MULTILINE)
    assert len(exported) > 100
    assert [name for name in exported if "wavroute::" not in name] == []


def test_the_command_of_the_wheel_is_the_one_that_was_built_and_starts_itself(clean, wavroute, tmp_path):
    assert assert_ok(in_clean(clean, "wavroute", "--version")) == assert_ok(wavroute("--version"))
    project = write_project(tmp_path)  # its cells are children of the command
    values = sets(train__steps=1, train__eval_every=1, train__save_every=1)
    assert_ok(in_clean(clean, "wavroute", "compare", project, "--out", tmp_path / "grid",
                       *sets(compare__schemes='["prenorm"]'), *values))
    assert json.loads((tmp_path / "grid" / "compare.json").read_text())["rows"]


SUM = "from wavroute._library import ops; import torch; a = torch.ones(2, 4); " \
      "print(ops.add_norm(a, a, None, 1.0, None, 1e-6)[0].sum().item())"


def test_python_finds_the_operators(clean):
    assert assert_ok(in_clean(clean, "python", "-c", SUM)) == "16.0\n"


def test_torch_may_stand_in_another_folder_than_the_package(clean, tmp_path):
    shutil.copytree(clean / "wavroute", tmp_path / "wavroute")
    start = "from wavroute._command import main; main()"
    there = {"PYTHONPATH": str(tmp_path)}
    shown = assert_ok(in_clean(clean, "python", "-c", start, "--version", **there))
    assert shown.startswith("wavroute ")
    assert assert_ok(in_clean(clean, "python", "-c", SUM, **there)) == "16.0\n"


def test_another_torch_is_named_with_the_one_that_is_needed(clean, tmp_path):
    other = tmp_path / "torch"
    other.mkdir()
    (other / "__init__.py").write_text("from .version import __version__\n")
    (other / "version.py").write_text("__version__ = '2.12.1+cpu'\n")
    words = ("expected torch 2.13.0", "given 2.12.1", str(other), "pip install torch==2.13.0")
    values = {"PYTHONPATH": str(tmp_path)}
    for command in (["wavroute", "--version"], ["python", "-m", "wavroute.sink"]):
        assert_error(in_clean(clean, *command, **values), *words)
    done = in_clean(clean, "python", "-c", "import wavroute", **values)
    assert done.returncode == 1 and done.stderr.count("ImportError: expected torch") == 1
    assert all(word in done.stderr for word in words), done.stderr


def test_a_missing_torch_is_named(clean, tmp_path):
    (tmp_path / "wavroute").symlink_to(clean / "wavroute")
    done = in_clean(clean, "python", "-S", "-c", "import wavroute", PYTHONPATH=str(tmp_path))
    assert "ImportError: expected torch 2.13.0, which wavroute was built with, given none" in done.stderr
