"""Our byte-pair encodings give the ids and the text of the library `tokenizers`."""

import json
import os
import pathlib
import random
import re
import subprocess

import pytest

tokenizers = pytest.importorskip("tokenizers")

from bpe_structures import HARD, MARK, STRUCTURES, corpus, with_every_pair  # noqa: E402
from paths import REPOSITORY  # noqa: E402

HELPER = pathlib.Path(os.environ.get("WAVROUTE_BIN", REPOSITORY / "build/bin")) / "write_tokenizer"

pytestmark = pytest.mark.skipif(not HELPER.exists(), reason=f"{HELPER} is not built")


class Pair:
    """A tokenizer as the library reads it, and as we do."""

    def __init__(self, theirs, path):
        self.theirs, self.path = theirs, path

    def run(self, *arguments, given=b""):
        done = subprocess.run([HELPER, *arguments, self.path], input=given, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def ids(self, kind, texts):
        encoded = [text if isinstance(text, bytes) else text.encode() for text in texts]
        given = b"".join(b"%d\n" % len(text) + text for text in encoded)
        lines = self.run("ids", kind, given=given).splitlines()
        assert not [line for line in lines if line.startswith(b"error")]
        return [[int(word) for word in line.split()] for line in lines]

    def decoded(self, verb, lists):
        given = "".join(" ".join(map(str, ids)) + "\n" for ids in lists)
        out, texts = self.run(verb, given=given.encode()), []
        while out:
            size, _, rest = out.partition(b"\n")
            texts.append(rest[: int(size)])
            out = rest[int(size) :]
        return texts

    def data_ids(self, text):
        """Special tokens are text in data."""
        self.theirs.encode_special_tokens = True
        return self.theirs.encode(text, add_special_tokens=False).ids

    def prompt_ids(self, text):
        self.theirs.encode_special_tokens = False
        return self.theirs.encode(text).ids

    def check(self, texts, kinds=("data", "prompt")):
        for kind in kinds:
            expected = self.prompt_ids if kind == "prompt" else self.data_ids
            for text, ids in zip(texts, self.ids(kind, texts), strict=True):
                assert ids == expected(text), (kind, text[:200])


@pytest.fixture(scope="module", params=list(STRUCTURES))
def pair(request, tmp_path_factory):
    theirs = STRUCTURES[request.param]()
    path = tmp_path_factory.mktemp(request.param) / "tokenizer.json"
    theirs.save(str(path))
    made = Pair(theirs, path)
    made.name = request.param
    return made


def marked_up(texts):
    added = ["<left>", "<right>", "<both> ", "Word", "WORD", "wordy", "two words more", "<mask>"]
    return [f"{a} {text[:40]} {b}{text[-9:]}  {a}" for text in texts for a, b in zip(added, added[3:])]


def scrambled(count, seed=1):
    """Random strings of characters that rules treat differently."""
    draw = random.Random(seed)
    alphabet = list(" \n\r\t'sStTlLeErvmdD1\u0664\u00bdaZ\u00e9\u4e2d.,-\u0301\u0323\u017f\u00a0\u3000\u1160")
    alphabet += [MARK, "  ", "\r\n", "'ll", "<|endoftext|>", "</s>", "\U0001f600", "\x00", "\uac00"]
    for _ in range(count):
        yield "".join(draw.choices(alphabet, k=draw.randint(1, 24)))


def test_hard_text_gives_the_same_ids(pair):
    pair.check([*HARD, *marked_up(HARD)])


def test_random_strings_give_the_same_ids(pair):
    pair.check(list(scrambled(2000)))


def test_pieces_give_the_ids_of_the_whole(pair):
    texts = [*HARD, " ".join(HARD), "word Word x 12 three <s> left" * 40]
    assert pair.ids("pieces", texts) == pair.ids("data", texts)


def sweep(everywhere):
    """Every code point beside letters, digits, spaces and newlines; those of planes where none is
    assigned only `everywhere`, and between a letter and a digit."""
    block = 1024
    for first in range(0, 0x110000, block):
        points = [chr(c) for c in range(first, first + block) if not 0xD800 <= c < 0xE000]
        if first < 0x40000 or 0xE0000 <= first < 0xE1000:
            yield "".join(f"a{c}1{c} {c}\n" for c in points)
        elif everywhere:
            yield "".join(f"a{c}1" for c in points)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "qwen2", "smollm2", "with_numbers", "llama2"])
def test_every_code_point_gives_the_same_ids(name, tmp_path):
    theirs = STRUCTURES[name]()
    if name != "llama2":
        theirs = with_every_pair(theirs)
    theirs.save(str(tmp_path / "tokenizer.json"))
    texts = list(sweep(everywhere=name in ("gpt2", "llama2")))
    expected = theirs.encode_batch_fast(texts, add_special_tokens=False)
    ours = Pair(theirs, tmp_path / "tokenizer.json").ids("data", texts)
    for text, ids, their_ids in zip(texts, ours, expected, strict=True):
        assert ids == their_ids.ids, hex(ord(text[1]))


def test_text_comes_back(pair):
    ids = pair.ids("data", HARD)
    for text, expected in zip(pair.decoded("decode", ids), ids, strict=True):
        assert text.decode() == pair.theirs.decode(expected, skip_special_tokens=False)


def test_any_ids_decode_alike(pair):
    draw = random.Random(2)
    size = pair.theirs.get_vocab_size()
    lists = [[draw.randrange(size) for _ in range(draw.randint(1, 12))] for _ in range(500)]
    plain, streamed = pair.decoded("decode", lists), pair.decoded("stream", lists)
    for ids, text, stream in zip(lists, plain, streamed, strict=True):
        expected = pair.theirs.decode(ids, skip_special_tokens=False)
        assert text.decode(errors="replace") == stream.decode()
        # `tokenizers` replaces each byte of a run of fallback bytes with a fault, we the faulty ones.
        if "\ufffd" not in expected or pair.theirs.get_vocab().get("<0x00>") is None:
            assert stream.decode() == expected


def test_what_we_write_is_the_same_tokenizer(pair, tmp_path):
    end, size, own_hash, text = pair.run("about").decode().split("\n", 3)
    again = Pair(tokenizers.Tokenizer.from_str(text), tmp_path / "tokenizer.json")
    again.path.write_text(text)
    again.check(HARD)
    assert again.run("about").decode().split("\n", 3)[:3] == [end, size, own_hash]
    assert int(size) == pair.theirs.get_vocab_size()


def test_training_finds_what_tokenizers_finds(tmp_path):
    text = "\n".join(corpus())
    vocab_size = 1200
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Words beyond 256 bytes are left out of ours.
    text = re.sub(r"[^\W\d_]{100,}| {200,}", "x", text)
    theirs.train_from_iterator([text], trainer)
    (tmp_path / "text.txt").write_text(text, newline="")
    out = tmp_path / "tokenizer.json"
    subprocess.run([HELPER, "train", tmp_path / "text.txt", out, str(vocab_size)], check=True)
    ours = tokenizers.Tokenizer.from_file(str(out))
    assert json.loads(ours.to_str())["model"]["merges"] == json.loads(theirs.to_str())["model"]["merges"]
    assert ours.get_vocab() == theirs.get_vocab()
    Pair(ours, out).check([*HARD, text])
