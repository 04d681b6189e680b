"""--tokenizer FILE.gguf and data.tokenizer: the ids of the tokenizer.json that `import` writes."""

import json
from pathlib import Path

import paths
import pytest
from cli_tools import assert_error, assert_ok, sets, write_project
from model_files import small_llama, smollm2, wavroute_import
from test_import import write_gguf

tokenizers = pytest.importorskip("tokenizers")
gguf = pytest.importorskip("gguf")

TEXT = "the cat sat on a mat\n\nthe dog, 42 times: grün €5 \U0001f600 don't<|im_end|>"


def byte_level(count: int) -> tokenizers.Tokenizer:
    """A byte-level encoding of `count` tokens whose last two end texts and turns."""
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=count - 2, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trained.train_from_iterator([TEXT, "the cat and the dog sat on the mat of the cat"], trainer)
    assert trained.get_vocab_size() == count - 2
    trained.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    return trained


def add_gpt2(writer, tokenizer: tokenizers.Tokenizer) -> None:
    words = json.loads(tokenizer.to_str())
    special = {token["content"]: token["id"] for token in words["added_tokens"]}
    pieces = sorted((words["model"]["vocab"] | special).items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([piece for piece, _ in pieces])
    writer.add_token_types([3 if piece in special else 1 for piece, _ in pieces])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge)
                             for merge in words["model"]["merges"]])
    writer.add_eos_token_id(special["<|im_end|>"])


def add_pieces(writer) -> None:
    """SentencePiece's, with bytes for what has no piece."""
    texts = ["\u2581", "t", "h", "e", "c", "a", "s", "\u2581t", "he", "\u2581the", "at"]
    pieces = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], *texts]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([0.0] * 259 + [-float(n) for n in range(len(texts))])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(texts))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """GGUF files of small Llamas, by their kind of tokenizer."""
    root = tmp_path_factory.mktemp("gguf")
    own = byte_level(270)
    for kind, add in (("gpt2", lambda writer: add_gpt2(writer, own)), ("llama", add_pieces)):
        llama = small_llama(root / f"llama-{kind}", vocab_size=270)
        write_gguf(root / f"{kind}.gguf", llama, ["F32"], add)
        wavroute_import(root / f"{kind}.gguf", root / kind)
    write_gguf(root / "none.gguf", small_llama(root / "llama-none", vocab_size=270), ["F32"])
    return root


def prepare(source: Path, out: Path, tokenizer: Path):
    return paths.call("wavroute", "data", "prepare", source, "--out", out, "--valid", 0,
                      "--tokenizer", tokenizer)


def shard(folder: Path) -> tuple[bytes, dict]:
    manifest = json.loads((folder / "manifest.json").read_text())
    return (folder / "train_0000.bin").read_bytes(), manifest["tokenizer"]


def assert_same_ids(source: Path, model: Path, scratch: Path) -> None:
    """The ids of TEXT by the GGUF's tokenizer are those by the imported one."""
    (scratch / "text.txt").write_text(TEXT)
    for name, tokenizer in (("gguf", source), ("json", model / "tokenizer.json"),
                            ("folder", model)):
        assert_ok(prepare(scratch / "text.txt", scratch / name, tokenizer))
    assert shard(scratch / "gguf") == shard(scratch / "json") == shard(scratch / "folder")
    info = json.loads(assert_ok(paths.call("wavroute", "data", "info", scratch / "gguf", "--json")))
    library = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    end = json.loads((model / "tokenizer_config.json").read_text())["eos_token"]
    # In data, special tokens that a text spells out are text.
    expected = [*library.encode(TEXT.removesuffix("<|im_end|>"), add_special_tokens=False).ids]
    assert info["ids"][:16] == expected[:16]
    assert info["tokenizer"]["end_token"] == library.token_to_id(end)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_ids_are_those_of_the_imported_tokenizer(kind, sources, tmp_path):
    assert_same_ids(sources / f"{kind}.gguf", sources / kind, tmp_path)


def test_the_ids_of_a_real_model_are_those_of_the_imported_tokenizer(tmp_path):
    source = smollm2(tmp_path)
    wavroute_import(source, tmp_path / "model")
    assert_same_ids(source, tmp_path / "model", tmp_path)


def test_a_training_takes_it_relative_to_its_configuration(sources, tmp_path):
    project = write_project(tmp_path)
    (tmp_path / "t.gguf").write_bytes((sources / "gpt2.gguf").read_bytes())
    project.write_text(project.read_text().replace('tokenizer = "chars"', 'tokenizer = "t.gguf"'))
    run = tmp_path / "run"
    assert_ok(paths.call("wavroute", "train", project, "--out", run, *sets(train__steps=2)))
    assert_ok(paths.call("wavroute", "train", project, "--out", run, "--resume", "auto",
                         *sets(train__steps=3)))
    ours = tokenizers.Tokenizer.from_file(str(run / "checkpoints/step_3/tokenizer.json"))
    theirs = tokenizers.Tokenizer.from_file(str(sources / "gpt2/tokenizer.json"))
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.encode(TEXT).ids == theirs.encode(TEXT).ids


def test_import_takes_what_data_prepare_takes(sources, tmp_path):
    for name, tokenizer in (("file", sources / "gpt2.gguf"), ("folder", sources / "gpt2")):
        wavroute_import(sources / "llama-none", tmp_path / name, "--tokenizer", tokenizer)
        assert (tmp_path / name / "tokenizer.json").read_bytes() == \
            (sources / "gpt2/tokenizer.json").read_bytes()


def test_a_file_without_a_tokenizer_is_named(sources, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "cut.gguf").write_bytes((sources / "gpt2.gguf").read_bytes()[:2000])
    out = tmp_path / "out"
    assert_error(prepare(tmp_path / "text.txt", out, sources / "none.gguf"), "none.gguf",
                 "with a tokenizer")
    assert_error(prepare(tmp_path / "text.txt", out, tmp_path / "cut.gguf"), "cut.gguf")
    assert_error(paths.call("wavroute", "import", sources / "llama-none", "--out", out,
                            "--tokenizer", sources / "none.gguf"), "none.gguf")
    assert not out.exists()
