"""A checkpoint that is missing, cut, hostile or of another model: named, exit code 2, no crash."""

import json
import shutil
import struct

import paths
import pytest
from cli_tools import assert_error, assert_ok, sets, write_project

EMBEDDING = "model.embed_tokens.weight"
NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Runs of wav and of prenorm beside the configuration."""
    config = write_project(tmp_path_factory.mktemp("checkpoints"))
    for scheme in ("wav", "prenorm"):
        values = sets(residual__scheme=scheme, train__steps=2)
        out = config.parent / scheme
        assert_ok(paths.call("wavroute", "train", config, "--out", out, "-q", *values))
    return config


def plain_folder(project, scheme, target):
    """The checkpoint as a plain Hugging Face folder: without the checksums of state.json."""
    source = project.parent / scheme / "checkpoints" / "step_2"
    target.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(source / name, target / name)
    return target


@pytest.fixture
def folder(project, tmp_path):
    return plain_folder(project, "wav", tmp_path / "plain")


@pytest.fixture
def evaluate(wavroute, project):
    return lambda folder: wavroute("eval", folder, "--data", project.parent / "valid.txt")


def rewrite(folder, change):
    """Lets `change` edit the header of model.safetensors; the data stays."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def edit_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_the_plain_folder_itself_is_read(evaluate, folder, project):
    expected = evaluate(project.parent / "wav").stdout
    assert assert_ok(evaluate(folder)) == expected
    rewrite(folder, lambda header: None)  # and a header that was rewritten
    assert assert_ok(evaluate(folder)) == expected


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_missing_file_is_named(evaluate, folder, name):
    (folder / name).unlink()
    assert_error(evaluate(folder), name.split(".")[0], folder)


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
    ],
)
@pytest.mark.parametrize("kept", [0, 300])
def test_a_cut_file_is_named(evaluate, folder, name, kept):
    path = folder / name
    path.write_bytes(path.read_bytes()[:kept])
    assert_error(evaluate(folder), path)


def test_missing_data_at_the_end_is_named(evaluate, folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    assert_error(evaluate(folder), path, "tensor")


@pytest.mark.parametrize("length", [0, 10**6, 2**63 - 1, 2**64 - 1])
def test_a_wrong_header_length_is_refused(evaluate, folder, length):
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    assert_error(evaluate(folder), path, "header")


def set_field(name, field, value):
    return lambda header: header[name].__setitem__(field, value)


def overlap(header):
    begin, end = header[NORM]["data_offsets"]
    header[EMBEDDING]["data_offsets"] = [begin, begin + 4 * 16 * header[EMBEDDING]["shape"][0]]


def move_last(header):
    name = max(set(header) - {"__metadata__"}, key=lambda name: header[name]["data_offsets"][1])
    begin, end = header[name]["data_offsets"]
    header[name]["shape"] = [2**30]
    header[name]["data_offsets"] = [begin, begin + 2**32]


def transpose(header):
    header[EMBEDDING]["shape"].reverse()


def rename(header):
    header["model.other.weight"] = header.pop(NORM)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (overlap, ""),
        (move_last, "the file may be cut"),
        (set_field(NORM, "data_offsets", [2**40, 2**40 + 64]), "hole"),
        (set_field(NORM, "data_offsets", [64, 0]), NORM),
        (set_field(NORM, "data_offsets", [-64, 0]), NORM),
        (set_field(NORM, "data_offsets", [2**64 - 64, 2**64 - 1]), NORM),
        (set_field(NORM, "data_offsets", [0]), NORM),
        (set_field(NORM, "shape", [2**62, 16]), NORM),
        (set_field(NORM, "shape", [-16]), NORM),
        (set_field(NORM, "shape", [17]), NORM),
        (set_field(NORM, "dtype", "I32"), NORM),
        (set_field(NORM, "dtype", "F128"), NORM),
        (set_field(NORM, "dtype", 7), NORM),
        (transpose, EMBEDDING),
        (rename, "model.other.weight"),
    ],
    ids=[
        "overlapping offsets",
        "offsets beyond the file",
        "far offsets",
        "offsets backwards",
        "negative offset",
        "offset that overflows",
        "one offset",
        "shape that overflows",
        "negative shape",
        "shape of other size",
        "integers",
        "unknown dtype",
        "dtype a number",
        "transposed",
        "renamed",
    ],
)
def test_a_hostile_header_names_file_and_tensor(evaluate, folder, change, word):
    rewrite(folder, change)
    assert_error(evaluate(folder), folder / "model.safetensors", word)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hidden_size": 32}, ["embed_tokens", "[12,32]", "[12,16]"]),
        ({"intermediate_size": 64}, ["gate_proj", "[64,16]", "[32,16]"]),
        ({"num_hidden_layers": 3}, ["model.layers.2."]),
        ({"num_hidden_layers": -1}, ["layers"]),
        ({"hidden_size": "wide"}, ["hidden_size"]),
        ({"num_attention_heads": 3}, ["heads"]),
        ({"vocab_size": 10**9}, ["[1000000000,16]"]),
    ],
    ids=lambda value: str(value),
)
def test_a_configuration_that_does_not_fit_the_tensors_is_refused(evaluate, folder, fields, words):
    edit_config(folder, **fields)
    assert_error(evaluate(folder), *words)


def test_a_tokenizer_of_another_vocabulary_is_refused(evaluate, folder):
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    count = len(vocabulary)
    tokenizer["model"]["vocab"] = vocabulary | {"\u00e9": count}
    path.write_text(json.dumps(tokenizer))
    assert_error(evaluate(folder), str(count), str(count + 1), "vocab")


def test_tensors_of_another_vocabulary_are_refused(evaluate, folder):
    config = json.loads((folder / "config.json").read_text())
    edit_config(folder, vocab_size=config["vocab_size"] + 1)
    assert_error(evaluate(folder), str(config["vocab_size"]))


@pytest.mark.parametrize(("scheme", "other"), [("wav", "prenorm"), ("prenorm", "wav")])
def test_tensors_of_another_scheme_are_refused(evaluate, project, tmp_path, scheme, other):
    folder = plain_folder(project, scheme, tmp_path / "mixed")
    source = plain_folder(project, other, tmp_path / "other") / "model.safetensors"
    shutil.copy(source, folder / "model.safetensors")
    assert_error(evaluate(folder), "_res_", folder / "model.safetensors")


def test_an_unknown_scheme_is_named(evaluate, folder):
    edit_config(folder, residual={"scheme": "waves"})
    assert_error(evaluate(folder), "waves", "wav")
