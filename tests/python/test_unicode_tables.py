"""The tables of characters are those that the installed library `tokenizers` has."""

import importlib.util

import pytest

pytest.importorskip("tokenizers")

from paths import REPOSITORY  # noqa: E402

FOLDER = REPOSITORY / "src/data"


def maker():
    spec = importlib.util.spec_from_file_location("tables", FOLDER / "make_unicode_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", ["unicode_classes.inc", "unicode_forms.inc"])
def test_the_checked_in_table_is_what_the_script_makes(file):
    checked_in = (FOLDER / file).read_text().splitlines()[1:]
    assert checked_in == maker().TABLES[file](), "run src/data/make_unicode_tables.py"
