"""tokenizer.json, as the C++ code writes it, gives the same ids in Hugging Face's libraries."""

import os
import pathlib
import subprocess

import pytest

tokenizers = pytest.importorskip("tokenizers")

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
WRITER = pathlib.Path(os.environ.get("WAVROUTE_BIN", REPOSITORY / "build/bin")) / "write_tokenizer"
TEXT = "def f(x):\r\n\treturn 'na\u00efve  \u20ac\U0001f600'  # e\u0301 \u2028\x00 \"\\\"\n\n<unk>\n"

pytestmark = pytest.mark.skipif(not WRITER.exists(), reason=f"{WRITER} is not built")


@pytest.fixture(params=["bytes", "chars"])
def kind(request):
    return request.param


@pytest.fixture
def path(kind, tmp_path):
    text = tmp_path / "text.txt"
    text.write_bytes(TEXT.encode())
    out = tmp_path / "tokenizer.json"
    subprocess.run([WRITER, kind, text, out], check=True)
    return out


def expected_ids(kind, text):
    if kind == "bytes":
        return list(text.encode())
    vocabulary = {character: i for i, character in enumerate(sorted(set(TEXT)))}
    return [vocabulary[character] for character in text]


@pytest.mark.parametrize("text", [TEXT, " ", "\n\n", "return x", "  \t \u20ac"])
def test_ids_and_text_agree(kind, path, text):
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    ids = tokenizer.encode(text).ids
    assert ids == expected_ids(kind, text)
    assert tokenizer.decode(ids) == text


def test_vocabulary_sizes_agree(kind, path):
    size = 256 if kind == "bytes" else len(set(TEXT))
    assert tokenizers.Tokenizer.from_file(str(path)).get_vocab_size() == size


def test_transformers_loads_it(kind, path):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(path), clean_up_tokenization_spaces=False
    )
    ids = tokenizer(TEXT)["input_ids"]
    assert ids == expected_ids(kind, TEXT)
    assert tokenizer.decode(ids) == TEXT


def test_an_unknown_character_is_an_error(kind, path):
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    if kind == "bytes":
        assert tokenizer.encode("\u0416").ids == list("\u0416".encode())
    else:
        with pytest.raises(Exception, match="UNK"):
            tokenizer.encode("\u0416")
