#!/usr/bin/env python3
"""Writes unicode_classes.inc and unicode_forms.inc: what every code point is to `tokenizers`.

The library is asked itself, so that the tables have its versions of Unicode: several, because its
regular expressions, its digits, its word characters, its normal forms and its lower case come from
different sources.

    python3 src/data/make_unicode_tables.py [FOLDER]
"""

import pathlib
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

LETTER, NUMBER, SPACE, NUMERIC, WORD = (1 << bit for bit in range(5))  # as unicode_classes.h

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
EVERY = "".join(map(chr, CODE_POINTS))
HANGUL = range(0xAC00, 0xD7A4)  # syllables: their forms are computed
HERE = pathlib.Path(__file__).resolve().parent


def matched(pattern):
    """The code points that a regular expression of one character matches."""
    kept = set()
    for piece, _ in pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str(EVERY):
        kept.update(piece)
    return [c for c in CODE_POINTS if chr(c) not in kept]


def digits():
    """What the pre-tokenizer Digits makes a piece of its own."""
    text = "".join("a" + chr(c) for c in CODE_POINTS)
    pieces = pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str(text)
    return [ord(piece) for piece, _ in pieces if len(piece) == 1 and piece != "a"]


def word_characters():
    """After what a token that must be a single word is not found."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.add_tokens([AddedToken("\n\t", single_word=True, normalized=False)])
    encoding = tokenizer.encode("".join(chr(c) + "\n\t" for c in CODE_POINTS))
    found = {begin // 3 for begin, _ in encoding.offsets}
    return [c for i, c in enumerate(CODE_POINTS) if i not in found]


def flags():
    values = [0] * 0x110000
    for bit, members in (
        (LETTER, matched(r"\p{L}")),
        (NUMBER, matched(r"\p{N}")),
        (SPACE, matched(r"\s")),
        (NUMERIC, digits()),
        (WORD, word_characters()),
    ):
        for c in members:
            values[c] |= bit
    return values


def changed(normalizer):
    """What a normalizer makes of the characters that it changes, as lists of code points."""
    forms = {}
    for c in CODE_POINTS:
        form = normalizer.normalize_str(chr(c))
        if form != chr(c) and c not in HANGUL:
            forms[c] = [ord(character) for character in form]
    return forms


def combining_classes():
    """Those that the library knows: it puts a mark of a lower class first."""
    high, low = "\u0345", "\u0334"  # of the classes 240 and 1
    nfd = normalizers.NFD().normalize_str
    classes = {}
    for c in CODE_POINTS:
        mark = unicodedata.combining(chr(c))
        if mark == 240 or mark == 0:
            is_known = mark == 240 and nfd("a" + chr(c) + low) == "a" + low + chr(c)
        else:
            is_known = nfd("a" + high + chr(c)) == "a" + chr(c) + high
        if is_known:
            classes[c] = mark
    return classes


def pairs():
    """(first, second, what they compose to)."""
    nfc = normalizers.NFC().normalize_str
    for c in CODE_POINTS:
        parts = unicodedata.decomposition(chr(c)).split()
        if len(parts) != 2 or parts[0].startswith("<") or c in HANGUL:
            continue
        first, second = (int(part, 16) for part in parts)
        if nfc(chr(first) + chr(second)) == chr(c):
            yield first, second, c


def runs(forms):
    """(first, last, step, to) for characters that become one; to grows as the character does."""
    singles = sorted((c, form[0]) for c, form in forms.items() if len(form) == 1)
    found = []
    for c, to in singles:
        for step in (1, 2):
            if found and c - found[-1][1] == step and found[-1][2] in (0, step):
                first, _, _, first_to = found[-1]
                if to - first_to == c - first:
                    found[-1] = (first, c, step, first_to)
                    break
        else:
            found.append((c, c, 0, to))
    return [(first, last, step or 1, to) for first, last, step, to in found]


def rows(values, width=100):
    line = ""
    for value in values:
        value = f"{value:#x}," if isinstance(value, int) else value
        if len(line) + len(value) > width:
            yield line
            line = ""
        line += value
    yield line


def array(name, values):
    return [f"constexpr uint32_t {name}[] = {{", *rows(values), "};"]


def ranges(values, bits):
    """(first code point << bits | value); a range ends where the next begins."""
    return [c << bits | values[c] for c in range(0x110000) if c == 0 or values[c] != values[c - 1]]


def form_arrays(name, forms):
    """Runs of characters that become one, and (character, how many, these) for the others."""
    longer = [[c, len(form), *form] for c, form in sorted(forms.items()) if len(form) != 1]
    flat_runs = [value for run in runs(forms) for value in run]
    return array(f"{name}Runs", flat_runs) + array(f"{name}Lists", sum(longer, []))


def classes_table():
    return array("kClassRanges", ranges(flags(), 5))


def forms_table():
    canonical, compatible = changed(normalizers.NFD()), changed(normalizers.NFKD())
    compatible = {c: form for c, form in compatible.items() if form != canonical.get(c)}
    combining = combining_classes()
    classes = [combining.get(c, 0) for c in range(0x110000)]
    return (
        form_arrays("kCanonical", canonical)
        + form_arrays("kCompatible", compatible)
        + form_arrays("kLower", changed(normalizers.Lowercase()))
        + array("kCombiningRanges", ranges(classes, 8))
        + array("kPairs", [value for pair in pairs() for value in pair])
    )


TABLES = {"unicode_classes.inc": classes_table, "unicode_forms.inc": forms_table}

if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for file, table in TABLES.items():
        head = "// Made by make_unicode_tables.py.  clang-format off"
        (folder / file).write_text("\n".join([head, *table()]) + "\n")
