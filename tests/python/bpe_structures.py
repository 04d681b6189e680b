"""Small tokenizers with the structures of well-known ones, trained by the library `tokenizers`."""

import json

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from paths import REPOSITORY

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
MARK = "\u2581"

# Every kind of character that a rule looks at, and what stands together in real text.
HARD = [
    "",
    " ",
    "  ",
    "\n",
    "\r\n\r\n",
    " \n \n  x",
    "Hello, world! It's we've I'll you're he'd they'm 'tis 'S 'LL 'Re",
    "can't\u2019s \u02bcs `s ''s 'sS 's's' '\u017f I'\u017f '\u212a x' ' '",
    "def f(x):\r\n\treturn x ** 2  # no\n\n\n\n",
    " " * 700 + "end",
    "a" + " " * 9 + "\n" + " " * 9 + "b" + "\t" * 5,
    "1 12 123 1234 12345678 3.14 1,000,000 0x1F \u00bd \u2167 \u0663\u0664\u0665 \u0be7\u0be8 \u4e09",
    "na\u00efve cafe\u0301 \u1ec7 e\u0323\u0302 \u0061\u0301\u0323 \u212b \ufb01 \u2460 \u1100\u1161\u11a8 \uac01\u11a8",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea \u2764\ufe0f",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22 \u4e2d\u6587\u3002\u65e5\u672c\u8a9e",
    "\x00 a\x00b \x7f\x80\x9f\u00a0\u2003x\u200bx\u3000\u2028\u2029\x85\x1c\x1d y",
    "<|endoftext|> <s> </s>\n<|im_start|>user\nHi<|im_end|> <unk><0x41>",
    MARK + " " + MARK + MARK + "a" + MARK + "b c",
    "x" * 3000 + "\u00e9" * 500 + "ab" * 2000,
    "\ufffd\ufeff\ue000\U000f0000\U0010ffff\U00011938\U00011935\U00011930\u32ff",
    "\u0130I\u0131i \u1e9e\u00df \u03a3\u03c3\u03c2 \u01c5",
]


def corpus():
    """Text that every checkout has."""
    files = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    return [*(file.read_text(encoding="utf-8") for file in files), *HARD * 3]


def trained(tokenizer, vocab_size=900, special=(), alphabet=()):
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special),
        initial_alphabet=list(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def byte_level(pre_tokenizer, special, normalizer=None, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return trained(tokenizer, special=special, alphabet=pre_tokenizers.ByteLevel.alphabet())


def split(regex, behavior="isolated", invert=False):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(regex), behavior, invert),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def begins_with(token, tokenizer):
    template = processors.TemplateProcessing(
        single=f"{token} $A", special_tokens=[(token, tokenizer.token_to_id(token))]
    )
    return processors.Sequence([processors.ByteLevel(trim_offsets=False), template])


def gpt2():
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), ["<|endoftext|>"])


def gpt2_with_prefix():
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True), ["<|endoftext|>"])


def llama3():
    tokenizer = byte_level(split(LLAMA3), ["<|begin_of_text|>", "<|end_of_text|>"])
    text = json.loads(tokenizer.to_str())
    text["model"]["ignore_merges"] = True
    # Words that no merge makes: only ignore_merges finds them.
    for word in ("Hello", "\u0120world", "\u0120return"):
        text["model"]["vocab"].setdefault(word, len(text["model"]["vocab"]))
    tokenizer = Tokenizer.from_str(json.dumps(text))
    tokenizer.post_processor = begins_with("<|begin_of_text|>", tokenizer)
    return tokenizer


def cl100k():
    return byte_level(split(CL100K, "removed", invert=True), ["<|endoftext|>"])


def qwen2():
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return byte_level(split(QWEN2), special, normalizers.NFC())


def smollm2():
    rules = [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
    return byte_level(pre_tokenizers.Sequence(rules), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])


def with_numbers():
    rules = [
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.ByteLevel(add_prefix_space=True),
    ]
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    return byte_level(pre_tokenizers.Sequence(rules), ["<|endoftext|>"], normalizer)


def metaspace_model(byte_fallback=True, fuse_unk=True, fallback_bytes=range(256)):
    """Llama 2's model: special tokens, 256 bytes, and what training finds."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    found = json.loads(trained(tokenizer, 700).to_str())["model"]
    plain = [token for token in found["vocab"] if all(c < "\u0250" or c == MARK for c in token)]
    fallback = [f"<0x{byte:02X}>" for byte in fallback_bytes] if byte_fallback else []
    tokens = list(dict.fromkeys(["<unk>", "<s>", "</s>", *fallback, *plain]))
    known = set(tokens)
    merges = [m for m in map(tuple, found["merges"]) if {*m, "".join(m)} <= known]
    model = models.BPE(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=merges,
        unk_token="<unk>",
        fuse_unk=fuse_unk,
        byte_fallback=byte_fallback,
    )
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in tokens[:3]])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def llama2():
    tokenizer = metaspace_model()
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(MARK, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def metaspace(scheme, split=True, **model):
    tokenizer = metaspace_model(**model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme, split=split)
    return tokenizer


def with_added_tokens():
    """Tokens of every kind between words, and a normalizer that some of them see."""
    tokenizer = byte_level(
        pre_tokenizers.ByteLevel(add_prefix_space=False), ["<|endoftext|>"], normalizers.Lowercase()
    )
    tokenizer.add_tokens(
        [
            AddedToken("<left>", lstrip=True, normalized=False),
            AddedToken("<right>", rstrip=True, normalized=False),
            AddedToken("<both> ", lstrip=True, rstrip=True),
            AddedToken("Word", single_word=True),
            AddedToken("wordy", single_word=True, normalized=False),
            AddedToken("two words"),
            AddedToken("two words more", normalized=False),
        ]
    )
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=True)])
    return tokenizer


def with_every_pair(tokenizer):
    """The same rules with a vocabulary in which any two bytes make a token: ids show where a text was
    cut into words. Letters, digits and spaces of the sweep are merged with what stands beside them
    before anything else is."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = sorted(
        ((a, b) for a in symbols for b in symbols), key=lambda pair: not {*"a1\u0120\u010a"} & {*pair}
    )
    vocab = {token: i for i, token in enumerate([*symbols, *(a + b for a, b in pairs)])}
    text = json.loads(tokenizer.to_str())
    text |= {"added_tokens": [], "post_processor": None}
    text["model"] |= {"vocab": vocab, "merges": pairs}
    return Tokenizer.from_str(json.dumps(text))


STRUCTURES = {
    "gpt2": gpt2,
    "gpt2_with_prefix": gpt2_with_prefix,
    "llama3": llama3,
    "cl100k": cl100k,
    "qwen2": qwen2,
    "smollm2": smollm2,
    "with_numbers": with_numbers,
    "llama2": llama2,
    "metaspace_first": lambda: metaspace("first"),
    "metaspace_always": lambda: metaspace("always"),
    "metaspace_whole": lambda: metaspace("never", split=False),
    "unknown_fused": lambda: metaspace("first", byte_fallback=False),
    "unknown_alone": lambda: metaspace("first", byte_fallback=False, fuse_unk=False),
    "some_bytes": lambda: metaspace("first", fallback_bytes=range(0xE0)),
    "some_bytes_alone": lambda: metaspace("never", fallback_bytes=range(0xE0), fuse_unk=False),
    "with_added_tokens": with_added_tokens,
}
