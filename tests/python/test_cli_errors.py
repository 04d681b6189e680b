"""Wrong use of the command line: exit code 2, what was expected and given and where, and a hint."""

import gzip
import json
import re
import signal
import struct

import paths
import pytest
from cli_tools import (
    assert_error,
    assert_ok,
    finish,
    sets,
    start,
    wait_until,
    write_project,
)

# Ids of 16 bits without a header, as nanoGPT's prepare.py writes them; one is beyond any byte.
NANOGPT = struct.pack("<2000H", *(i % 250 if i != 1000 else 50000 for i in range(2000)))
SHORT_TEXT = "the cat sat"  # 11 tokens, one sequence takes context + 1 = 17
UNKNOWN_AT = 39
UNKNOWN_TEXT = "the cat sat on the mat and the cat ran Z then"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("errors"))


@pytest.fixture(scope="module")
def run(project):
    out = project.parent / "run"
    assert_ok(paths.call("wavroute", "train", project, "--out", out, "-q"))
    return out


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimizer__lrr": 1}, ["'lrr'", "[optimizer]", "did you mean 'lr'"]),
        ({"modell__layers": 1}, ["modell", "did you mean 'model'"]),
        ({"residual__betta": -1}, ["'betta'", "did you mean 'beta'"]),
        ({"residual__scheme": "wave"}, ["wave", "'wav'"]),
        ({"optimizer__lr": -1}, ["'lr'", "> 0", "-1"]),
        ({"train__batch": 0}, ["'batch'", ">= 1", "0"]),
        ({"train__micro_batch": 3}, ["train.micro_batch", "3", "2"]),
        ({"model__layers": 12, "residual__blocks": 8}, ["residual.blocks", "8", "3", "6, 12"]),
        ({"model__layers": 12, "residual__blocks": 7}, ["residual.blocks", "7", "6"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_value_names_its_key_and_the_mend(wavroute, project, tmp_path, values, words):
    result = wavroute("train", project, "--out", tmp_path / "run", *sets(**values))
    assert_error(result, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "value", "expected", "given"),
    [
        ("optimizer.lr", "abc", "a number", "a string"),
        ("model.layers", "2.5", "an integer", "a float"),
        ("model.tie_embeddings", "1", "true or false", "an integer"),
    ],
)
def test_a_wrong_type_names_both_types(wavroute, project, tmp_path, key, value, expected, given):
    result = wavroute("train", project, "--out", tmp_path / "run", "--set", f"{key}={value}")
    assert_error(result, expected, given, key.split(".")[1], f"--set {key}={value}")


def test_an_unknown_key_in_a_file_names_file_and_line(wavroute, project, tmp_path):
    config = tmp_path / "own.toml"
    config.write_text(f'extends = "{project}"\n[train]\nstepps = 3\n')
    assert_error(wavroute("config", "check", config), "own.toml:3", "'stepps'", "'steps'")


def test_a_text_shorter_than_one_sequence_names_both_lengths(wavroute, project, tmp_path):
    text = tmp_path / "short.txt"
    text.write_text(SHORT_TEXT)
    result = wavroute("train", project, "--out", tmp_path / "run", *sets(data__train=text))
    assert_error(result, "17 tokens", f"given {len(SHORT_TEXT)}", text)
    assert not (tmp_path / "run").exists()


def test_a_text_shorter_than_the_context_is_scored(wavroute, run, tmp_path):
    text = tmp_path / "short.txt"
    text.write_text(SHORT_TEXT)
    scored = json.loads(assert_ok(wavroute("eval", run, "--data", text, "--json")))
    assert scored["tokens"] == len(SHORT_TEXT) - 1
    assert 0 < scored["loss"] < 10
    text.write_text("t")
    assert_error(wavroute("eval", run, "--data", text), "at least 2 tokens", text)


@pytest.mark.parametrize(
    ("content", "sets_of_data", "words"),
    [
        (gzip.compress(b"the cat sat on the mat\n" * 99), {}, ["gzip", "gunzip"]),
        (NANOGPT, {}, ["16-bit token ids", 'data.format = "tokens16"']),
        (NANOGPT, {"data__format": "tokens16"}, ["below 256", "given 50000, at token 1000 of"]),
        (struct.pack("<256i", 20240520, 1, 9, *[0] * 253) + NANOGPT, {}, ["llm.c", "9 tokens of 2 bytes"]),
    ],
    ids=["gzip", "nanogpt", "beyond-the-vocabulary", "llmc"],
)
def test_a_binary_file_is_not_taken_for_text(
    wavroute, project, tmp_path, content, sets_of_data, words
):
    text = tmp_path / "train.bin"
    text.write_bytes(content)
    more = {"data__train": text, "data__valid": "", "data__tokenizer": "bytes"} | sets_of_data
    result = wavroute("train", project, "--out", tmp_path / "run", *sets(**more))
    assert_error(result, text, *words)
    assert not (tmp_path / "run").exists()


def test_the_limit_of_a_preset_is_not_that_of_another_text(wavroute, project):
    text = project.parent / "train.txt"
    shown = assert_ok(wavroute("config", "show", "tiny", *sets(data__train=text)))
    assert re.search(r"max_bytes = 0 +# --set names another data.train", shown)
    shown = assert_ok(wavroute("config", "show", "tiny"))
    assert re.search(r"max_bytes = 500000 +# preset tiny", shown)


def test_a_missing_file_is_named_with_its_nearest_neighbour(wavroute, project, run, tmp_path):
    missing = project.parent / "trane.txt"
    result = wavroute("train", project, "--out", tmp_path / "run", *sets(data__train=missing))
    assert_error(result, missing, "train.txt")
    assert_error(wavroute("train", tmp_path / "none.toml"), "none.toml", "tiny")
    assert_error(wavroute("eval", run, "--data", missing), missing)
    assert_error(wavroute("eval", tmp_path / "none", "--data", project), tmp_path / "none")
    valid = project.parent / "valid.txt"
    result = wavroute("eval", run, "--data", valid, "--checkpoint", 7)
    assert_error(result, "'7'", "8, 12", run)


def test_an_unknown_character_is_named_with_its_offset(wavroute, run, tmp_path):
    assert UNKNOWN_TEXT.index("Z") == UNKNOWN_AT
    text = tmp_path / "other.txt"
    text.write_text(UNKNOWN_TEXT)
    assert_error(wavroute("eval", run, "--data", text), "U+005A", f"byte {UNKNOWN_AT}", text)
    result = wavroute("generate", run, "--prompt", "theZ")
    assert_error(result, "U+005A", "byte 3", "--prompt")


def test_a_run_folder_that_can_not_be_made_is_named(wavroute, project, tmp_path):
    (tmp_path / "file").write_text("text")
    result = wavroute("train", project, "--out", tmp_path / "file" / "run")
    assert_error(result, tmp_path / "file", "Not a directory")


def test_a_folder_that_holds_a_run_is_refused_and_kept(wavroute, project, run):
    def content():
        files = [path for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
        return {path: path.read_bytes() for path in files}

    before = content()
    assert_error(wavroute("train", project, "--out", run), run, "--resume auto")
    assert content() == before


def test_a_folder_in_use_is_refused_to_a_second_process(wavroute, project, tmp_path):
    out = tmp_path / "run"
    first = start("train", project, "--out", out, *sets(train__steps=100000))
    try:
        assert wait_until((out / "metrics.jsonl").exists, first)
        first.send_signal(signal.SIGSTOP)
        for more in ([], ["--resume", "auto"]):
            result = wavroute("train", project, "--out", out, *sets(train__steps=100000), *more)
            assert_error(result, out, str(first.pid))
    finally:
        finish(first, signal.SIGKILL)


def test_a_plan_beyond_the_memory_names_a_micro_batch_that_fits(wavroute, project, tmp_path):
    text = tmp_path / "long.txt"
    text.write_text((project.parent / "valid.txt").read_text() * 8)
    values = {
        "model__layers": 24,
        "model__width": 128,
        "model__heads": 2,
        "model__hidden": 0,
        "model__context": 1024,
        "data__train": text,
        "data__valid": text,
        "train__batch": 4096,
    }
    full = sets(**values, train__micro_batch=4096)
    for more in (["--dry-run"], ["--out", tmp_path / "run"]):
        result = wavroute("train", project, *full, *more)
        assert_error(result, "micro_batch = 4096", "GiB")
        hint = result.stderr.split("hint: ")[1]
        assert 1 <= int(hint.split("train.micro_batch = ")[1].split()[0]) < 4096
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("more", [["--dry-run"], []], ids=["dry-run", "train"])
def test_a_model_beyond_the_memory_is_refused_before_it_is_made(wavroute, project, tmp_path, more):
    values = sets(model__layers=480, model__width=8192, model__hidden=0, residual__blocks="auto")
    result = wavroute("train", project, "--out", tmp_path / "run", *values, *more)
    assert_error(result, "memory")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["wavroute --help"]),
        (["frobnicate"], ["frobnicate", "wavroute --help"]),
        (["train"], ["CONFIG", "wavroute train --help"]),
        (["eval", "RUN"], ["--data", "wavroute eval --help"]),
        (["train", "CONFIG", "--frob"], ["--frob", "wavroute train --help"]),
        (["eval", "RUN", "--data", "VALID", "--program", "0-7"], ["layers 0 to 1", "'0-7'"]),
        (["eval", "RUN", "--data", "VALID", "--program", "1-x"], ["x", "layer program"]),
        (["eval", "RUN", "--data", "VALID", "--program", "0x0"], ["0x0", "layer program"]),
        (
            ["eval", "RUN", "--data", "VALID", "--program", "0", "--layers", "0"],
            ["--program", "--layers"],
        ),
        (["generate", "RUN", "--prompt", "the", "--temperature", "hot"], ["temperature", "hot"]),
    ],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_wrong_arguments_are_named(wavroute, project, run, arguments, words):
    names = {"RUN": run, "CONFIG": project, "VALID": project.parent / "valid.txt"}
    assert_error(wavroute(*[names.get(word, word) for word in arguments]), *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["eval", "RUN", "--data", "VALID", "--precision", "fp8"], ["fp8", "bf16"]),
        (["generate", "RUN", "--prompt", ""], ["--prompt"]),
        (["generate", "RUN", "--prompt", "the", "--temperature", "-1"], ["temperature", "-1"]),
        (["generate", "RUN", "--prompt", "the", "--top-p", "2"], ["top-p", "2"]),
        (["generate", "RUN", "--prompt", "the", "--top-k", "-2"], ["top-k", "-2"]),
        (["generate", "RUN", "--prompt", "the", "--tokens", "0"], ["--tokens", "0"]),
        (["compare", "CONFIG", "--resume", "7"], ["--resume auto", "7"]),
        (["compare", "CONFIG", "--speed-rounds", "-1"], ["--speed-rounds", "from 0", "'-1'"]),
    ],
    ids=" ".join,
)
def test_a_wrong_value_of_an_option_is_named(wavroute, project, run, arguments, words):
    names = {"RUN": run, "CONFIG": project, "VALID": project.parent / "valid.txt"}
    assert_error(wavroute(*[names.get(word, word) for word in arguments]), *words)


@pytest.mark.parametrize("scheme", ["act", "full_attnres"])
def test_a_layer_program_is_refused_where_it_has_no_meaning(wavroute, project, tmp_path, scheme):
    out = tmp_path / "run"
    values = sets(residual__scheme=scheme, train__steps=1)
    assert_ok(wavroute("train", project, "--out", out, "-q", *values))
    result = wavroute("eval", out, "--data", project.parent / "valid.txt", "--program", "0")
    assert_error(result, scheme, "layer program")
    assert_error(wavroute("generate", out, "--prompt", "the", "--program", "0"), scheme)


def test_logits_that_can_not_be_written_are_found_before_the_model_is_read(wavroute, tmp_path):
    """Where a link leads counts, as it does when they are written."""
    (tmp_path / "link").symlink_to(tmp_path / "missing" / "logits.safetensors")
    result = wavroute("eval", tmp_path / "no-model", "--data", "x", "--logits", tmp_path / "link")
    assert_error(result, tmp_path / "missing")
