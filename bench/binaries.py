"""What bench/same.py and bench/pace.py share: a built `wavroute` that is asked about itself."""

import json
import re
import subprocess
import sys
from functools import cached_property
from pathlib import Path

# In the hint of an error: names with commas between them, more of them than a suggestion has.
LIST_OF_SCHEMES = re.compile(r"\w+(?:, \w+){2,}")


class Unusable(Exception):
    """What was expected and what was given: exit code 2."""


class Binary:
    """A `wavroute` that was built, here or earlier: one file, which can be copied anywhere."""

    def __init__(self, path):
        self.path = Path(path).resolve()
        if not self.path.is_file():
            raise Unusable(f"expected a built wavroute, given {path}, which is no file")
        version = self.call("--version", check=True).stdout  # wavroute 0.1.0 (COMMIT)
        self.commit = version.strip().rpartition("(")[2].rstrip(")")

    @cached_property
    def facts(self):
        """What `doctor` says of the machine and the build."""
        return json.loads(self.call("doctor", "--json", check=True).stdout)

    def call(self, *arguments, check=False):
        try:
            done = subprocess.run([str(self.path), *map(str, arguments)], capture_output=True,
                                  text=True, errors="replace", stdin=subprocess.DEVNULL)
        except OSError as error:
            raise Unusable(f"expected a built wavroute, given {self.path}: {error.strerror}")
        if check and done.returncode:
            raise Unusable(f"expected an answer to `{self.path} {' '.join(map(str, arguments))}`, "
                           f"given exit code {done.returncode}: {done.stderr.strip()}")
        return done

    def schemes(self):
        """Every scheme of its registry, in order: the hint of the error about one that isn't."""
        refusal = self.call("config", "show", "tiny", "--set", "residual.scheme=no-such-scheme")
        for line in refusal.stderr.splitlines():
            found = LIST_OF_SCHEMES.search(line) if line.startswith("hint:") else None
            if found:
                return found[0].split(", ")
        raise Unusable(f"expected {self.path} to list its schemes, given {refusal.stderr.strip()!r}")


def names(text):
    """A list of words as arguments have it: prenorm,wav"""
    return [word for word in text.split(",") if word]


def run(main):
    """Calls main; its exit code, or 2 with one line about what can't be used."""
    try:
        sys.exit(main())
    except Unusable as error:
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
