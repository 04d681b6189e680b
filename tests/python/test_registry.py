"""A scheme is one file and one line in schemes.def: nothing else names it."""

import re

import paths

DEFAULTS = {  # the two places that must choose one
    ("include/wavroute/config.h", "wav"),
    ("include/wavroute/decoder.h", "prenorm"),
}


def registered() -> list[str]:
    text = (paths.REPOSITORY / "src" / "residual" / "schemes.def").read_text()
    return re.findall(r"^SCHEME\((\w+)\)$", text, re.MULTILINE)


def test_no_code_outside_the_schemes_names_one():
    names = registered()
    assert len(names) > 10
    quoted = re.compile(rf'"({"|".join(names)})"')
    found = set()
    for folder in ("apps", "include", "src"):
        for path in sorted((paths.REPOSITORY / folder).rglob("*")):
            if path.suffix not in (".cpp", ".h", ".js", ".txt"):
                continue
            if path.parent.name == "residual":  # hints may name a neighbour
                continue
            code = re.sub(r"//[^\n]*", "", path.read_text())
            name = str(path.relative_to(paths.REPOSITORY))
            found |= {(name, scheme) for scheme in quoted.findall(code)}
    assert found == DEFAULTS


def test_no_list_of_sources_names_one():
    for path in paths.REPOSITORY.glob("src/**/CMakeLists.txt"):
        for name in registered():
            assert not re.search(rf"\b{name}\.cpp\b", path.read_text()), (path, name)
