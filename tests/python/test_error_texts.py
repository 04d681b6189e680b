"""Errors have one voice: "expected WHAT, given GIVEN, WHERE" (include/wavroute/error.h)."""

import re

from paths import REPOSITORY

STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
DIALECT = re.compile(r"\b(was|were) (expected|given)\b|\bexpected\b.*, (got|found) |, got \{")
# Operators speak as those of torch do: "[op] expected ..., got ...".
OTHERS = ("src/ops", "src/functional")


def texts_of(path):
    """The string literals of a source; neighbours are one text."""
    source = re.sub(r"//.*", "", path.read_text())
    return STRING.findall(re.sub(r'"\s*\n\s*"', "", source))


def test_no_error_is_worded_in_another_way():
    wrong = []
    for folder in ("src", "apps"):
        for path in sorted((REPOSITORY / folder).rglob("*.cpp")):
            name = str(path.relative_to(REPOSITORY))
            if name.startswith(OTHERS):
                continue
            wrong += [f"{name}: {text}" for text in texts_of(path) if DIALECT.search(text)]
    assert not wrong
