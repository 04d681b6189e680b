"""What the documents claim about the tree: sections, links, folders and schemes that exist."""

import os
import re
from collections import defaultdict
from pathlib import Path

from paths import REPOSITORY
from test_registry import registered

DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md")),
             *sorted((REPOSITORY / "bench").glob("*.md"))]
TREE = ("apps", "bench", "cmake", "configs", "docs", "include", "src", "tests")
TEXT = (".cpp", ".h", ".def", ".inc", ".py", ".md", ".toml", ".js", ".css", ".txt", ".cmake")
# "section 3", "sections 3 to 5", "§6.6"
CITATION = re.compile(r"(?:\bsections?\s+|§\s*)(\d+(?:\.\d+)?)(?:(?:\s*,\s*|\s+(?:to|and)\s+)§?"
                      r"(\d+(?:\.\d+)?))?", re.IGNORECASE)


def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text()


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*"))
            if path.suffix in TEXT and path.is_file()]


def sections_of_method() -> set[str]:
    """"4" for each heading "## 4. ...", and "6.1" for each numbered row of a table in section 6."""
    sections, current = set(), ""
    for line in text_of("docs/method.md").splitlines():
        if heading := re.match(r"## (\d+)\. ", line):
            current = heading[1]
            sections.add(current)
        elif item := re.match(r"\| (\d+) \|", line):
            sections.add(f"{current}.{item[1]}")
    return sections


def prose(text: str) -> str:
    """On one line, without the signs that begin a comment's lines: citations may be wrapped."""
    return re.sub(r"\s*\n\s*(?://+|#|\*)?\s*", " ", text)


def test_every_citation_names_a_section_of_the_method():
    known = sections_of_method()
    assert {"1", "3", "6.6"} <= known
    cited = defaultdict(set)
    for path in [*sources(*TREE), *REPOSITORY.glob("*.md")]:
        if path == Path(__file__).resolve():
            continue
        for found in CITATION.finditer(prose(path.read_text())):
            for number in filter(None, found.groups()):
                cited[number].add(str(path.relative_to(REPOSITORY)))
    assert sum(map(len, cited.values())) > 20
    assert {number: files for number, files in cited.items() if number not in known} == {}


def test_every_relative_link_leads_to_a_file():
    links = {}
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = document.parent / path if path else document
            links[document.name, target] = file.exists() and (
                not anchor or anchor in anchors_of(file.read_text()))
    assert len(links) > 5
    assert [link for link, leads in links.items() if not leads] == []


def anchors_of(markdown: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_paths_in_documents_exist():
    """`src/io/file.h`, `tests/fuzz`, `configs/` in backquotes; not the change log's, which is
    history."""
    named = set()
    for document in DOCUMENTS:
        if document.name == "CHANGELOG.md":
            continue
        for path in re.findall(rf"`((?:{'|'.join(TREE)})/[\w./-]*)`", document.read_text()):
            named.add((document.name, path))
    assert len(named) > 20
    assert {(name, path) for name, path in named if not (REPOSITORY / path).exists()} == set()


# ---- the drawing of docs/architecture.md -----------------------------------------------------


def drawing() -> dict[str, list[str]]:
    """Folder -> the folders after its arrow, from top to bottom."""
    text = text_of("docs/architecture.md")
    arrows = r"(?: +-> (.*(?:\n {21,}\w.*)*)\n)?"  # a long list goes on in the next line
    folders = re.findall(rf"^    (?:apps|src)/(\w+) .*\n{arrows}", text, re.MULTILINE)
    return {"apps" if name == "wavroute" else name: arrows.split() for name, arrows in folders}


def owners() -> dict[str, str]:
    """Public header -> the folder that it belongs to."""
    return dict(re.findall(r"`(\w+\.h)`\s+\((\w+)\)", text_of("docs/architecture.md")))


def includes() -> dict[str, set[str]]:
    owner, found = owners(), defaultdict(set)
    for path in sources("apps", "include", "src"):
        place = path.relative_to(REPOSITORY).parts
        folder = {"apps": "apps", "include": owner.get(path.name)}.get(place[0], place[1])
        for header in re.findall(r'^#include "([^"]+)"', path.read_text(), re.MULTILINE):
            first, _, name = header.partition("/")
            if first == "wavroute" and (REPOSITORY / "include" / header).exists():
                found[folder].add(owner[name])
            elif (REPOSITORY / "src" / first).is_dir():
                found[folder].add(first)
    return {folder: others - {folder} for folder, others in found.items()}


def test_every_public_header_has_a_folder():
    headers = os.listdir(REPOSITORY / "include" / "wavroute")
    assert {header: owners().get(header) for header in headers if header not in owners()} == {}
    assert set(owners()) <= set(headers)


def test_the_drawing_has_the_arrows_of_the_sources_and_no_others():
    drawn = {folder: set(arrows) for folder, arrows in drawing().items()}
    assert drawn == {"base": set()} | includes()


def test_no_arrow_of_the_drawing_points_up():
    order = list(drawing())
    for folder, arrows in drawing().items():
        assert [a for a in arrows if order.index(a) <= order.index(folder)] == [], folder


# ---- schemes ---------------------------------------------------------------------------------


def test_every_list_of_schemes_has_every_scheme():
    method, readme, base = map(text_of, ("docs/method.md", "README.md", "configs/base.toml"))
    comments = " ".join(re.findall(r"^# .*", base, re.MULTILINE))
    for scheme in registered():
        assert re.search(rf"\*\*{scheme}\*\*|^\| {scheme} \|", method, re.MULTILINE), scheme
        assert f"`{scheme}`" in readme, scheme
        assert re.search(rf"\b{scheme}\b", comments), scheme


def test_the_readme_claims_no_scheme_that_is_not_there():
    listed = re.search(r"Schemes: ([^.]*)\.", text_of("README.md"))[1]
    assert sorted(re.findall(r"`(\w+)`", listed)) == sorted(registered())


def test_the_readme_is_at_most_120_lines():
    assert len(text_of("README.md").splitlines()) <= 120
