"""The commands of the manual's pages run as they stand there, one after the other, in a folder that has
the files they name."""

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import paths
import pytest
from cli_tools import assert_ok, sets
from paths import REPOSITORY

# Pages that make everything they use, and pages that begin with runs and texts of the reader's own.
FROM_NOTHING = ["train", "compare"]
FROM_FILES = ["data", "models", "deploy", "inspect", "programs"]
# What stands for something of the reader's own.
WORDS = {"CONFIG": "mine.toml", "SOURCE": "plain-hf", "RUN": "model"}
TEMPLATE = "{% for m in messages %}{{ m.content }}\n{% endfor %}"


def commands(page: str) -> list[list[str]]:
    """The words after wavroute of each line of code that begins with it, without what is a remark. What
    stands in brackets is left out; a line with this|that is there once for each."""
    text = (REPOSITORY / "docs" / f"{page}.md").read_text()
    found = []
    for line in re.findall(r"^    wavroute (.*)$", text, re.MULTILINE):
        line = re.sub(r" \[-.*?\]", "", line)
        choices = re.findall(r"\w+(?:\|\w+)+", line) or [""]
        for choice in choices[0].split("|"):
            one = line.replace(choices[0], choice).replace("PATH", f"exported.{choice}")
            one = re.sub(r"\b[A-Z]{3,}\b", lambda word: WORDS.get(word[0], word[0]), one)
            found.append(shlex.split(one, comments=True))
    return found


def run(folder, arguments) -> None:
    done = subprocess.run(
        [str(paths.program("wavroute")), *arguments], cwd=folder, capture_output=True, text=True,
        timeout=300, input="def \n", env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, (arguments, done.stderr)


@pytest.mark.parametrize("page", FROM_NOTHING)
def test_the_commands_of_a_page_run_in_their_order(tmp_path, page):
    words = [line for line in commands(page) if WORDS["CONFIG"] not in line]
    assert len(words) > 4
    for arguments in words:
        run(tmp_path, arguments)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Texts, and two models of the preset tiny trained for a moment: a run of wav, and prenorm as a run,
    as a folder for transformers, and imported from it."""
    folder = tmp_path_factory.mktemp("files")
    prose = "".join(path.read_text() for path in sorted((REPOSITORY / "docs").glob("*.md")))
    code = "".join(path.read_text() for path in sorted((REPOSITORY / "tests" / "python").glob("*.py")))
    for name, text in (("book.txt", prose), ("prose.txt", prose), ("text.txt", prose), ("code.py", code)):
        (folder / name).write_text(text)
    (folder / "prompts.txt").write_text("def \nclass \n")
    (folder / "chat.jinja").write_text(TEMPLATE)
    (folder / "mine.toml").write_text('extends = "tiny.toml"\nname = "mine"\n')
    (folder / "stories").mkdir()
    for number, story in enumerate(prose.split("\n## ")):
        (folder / "stories" / f"{number}.txt").write_text(story)
    with gzip.open(folder / "more.jsonl.gz", "wt") as lines:
        lines.writelines(json.dumps({"text": line}) + "\n" for line in prose.splitlines())
    run(folder, ["data", "train-tokenizer", "stories", "--vocab", "300", "--out", "tokenizer.json"])
    for name, scheme in (("tiny", "wav"), ("plain", "prenorm")):
        run(folder, ["train", "tiny", "-q", "--out", f"runs/{name}",
                     *sets(data__train="book.txt", residual__scheme=scheme)])
    run(folder, ["export", "runs/plain", "--format", "hf", "--out", "plain-hf"])
    settings = folder / "plain-hf" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": TEMPLATE}))
    run(folder, ["import", "plain-hf", "--out", "model"])
    return folder


@pytest.mark.parametrize("page", FROM_FILES)
def test_the_commands_of_a_page_run_on_the_files_that_they_name(files, tmp_path, page):
    place = shutil.copytree(files, tmp_path / "place")
    words = commands(page)
    assert len(words) > 2
    for arguments in words:
        short = sets(train__steps=2, data__eval_tokens=256) if arguments[0] == "train" else []
        run(place, [*arguments, *short])


def test_the_lines_for_transformers_run(files, tmp_path):
    pytest.importorskip("transformers")
    text = (REPOSITORY / "docs" / "deploy.md").read_text()
    block = re.search(r"^    from transformers.*\n(?:    .*\n|\n)*", text, re.MULTILINE)[0]
    script = re.sub(r"^    ", "", block, flags=re.MULTILINE)
    assert '"tiny-hf"' in script and "print" in script
    assert_ok(paths.call("wavroute", "export", files / "runs" / "tiny", "--format", "hf", "--out",
                         tmp_path / "tiny-hf"))
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True,
                          timeout=300)  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith("def "), done.stderr


def test_the_scheme_that_is_shown_compiles(tmp_path):
    """As the file of a scheme beside the others is compiled, but for machine code."""
    commands_file = paths.program("wavroute").parent.parent / "compile_commands.json"
    if not commands_file.is_file():
        pytest.skip("no compile_commands.json beside the built programs")
    text = (REPOSITORY / "docs" / "add-a-scheme.md").read_text()
    line = re.search(r"^    (SCHEME\((\w+)\))$", text, re.MULTILINE)
    code = re.search(r"^    // .*\n    #include(?:.*\n(?=    |\n))*", text, re.MULTILINE)[0]
    assert f"SchemeInfo {line[2]}()" in code
    (tmp_path / "scheme.cpp").write_text(re.sub(r"^    ", "", code, flags=re.MULTILINE))
    (tmp_path / "residual").mkdir()
    registry = (REPOSITORY / "src" / "residual" / "schemes.def").read_text()
    (tmp_path / "residual" / "schemes.def").write_text(f"{registry}{line[1]}\n")
    (entry,) = [entry for entry in json.loads(commands_file.read_text())
                if entry["file"].endswith("src/residual/rezero.cpp")]
    compiler, *flags = shlex.split(entry["command"])
    flags = flags[:flags.index("-o")]
    done = subprocess.run([compiler, f"-I{tmp_path}", *flags, "-fsyntax-only", tmp_path / "scheme.cpp"],
                          cwd=entry["directory"], capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
