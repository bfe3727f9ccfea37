#!/usr/bin/env python3
"""Finding lines in 1 GiB of real text, with their numbers: Raftwerk's `grep` beside ripgrep (and GNU grep), in one run on the same cores.

    cargo build --release -p raftwerk
    python3 bench/rivals/word_count.py --make text
    python3 bench/rivals/grep.py --text text [--turns 3] [--threads 2] [--workers 1] [--dir DIR] [--pattern NAME]

Patterns: a rare literal, a common literal, a class of characters, a literal whatever its case. Every contender writes `file:number:line` rows (`rg -nH`,
`grep -nH`) to a file; all must be equal byte by byte. How turns are timed: `contest.py`.
"""

import argparse
import hashlib
import pathlib

from contest import Program, Raftwerk, contest, options, workplace

PATTERNS = {
    "rare literal": ("meticulous", False),
    "common literal": ("return", False),
    "class": (r"[A-Z][a-z]+[0-9]{3,}[a-z]", False),
    "any case": ("segmentation", True),
}


class RipGrep(Program):
    name, program = "ripgrep", "rg"

    def command(self):
        pattern, case = PATTERNS[self.args.pattern]
        flags = ["-n", "-H", "--no-heading", "--no-config", "--no-messages", "-a", "-j", str(self.args.threads)] + (["-i"] if case else [])
        return ["sh", "-c", 'out=$1; shift; exec "$@" > "$out"', "sh", self.out, "rg", *flags, "-e", pattern, self.source]


class GnuGrep(Program):
    name, program = "GNU grep", "grep"

    def command(self):
        pattern, case = PATTERNS[self.args.pattern]
        flags = ["-n", "-H", "-a", "-E"] + (["-i"] if case else [])
        return ["sh", "-c", 'out=$1; shift; exec "$@" > "$out"', "sh", self.out, "grep", *flags, "-e", pattern, self.source]


class Own(Raftwerk):
    def job(self):
        pattern, case = PATTERNS[self.args.pattern]
        return (
            f'[input]\nfiles = ["{self.source}"]\nsplit = "16MiB"\n[map]\nkernel = "grep"\n'
            f"[map.params]\npattern = '{pattern}'\nignore_case = \"{'yes' if case else 'no'}\"\n"
            f'[output]\npath = "{self.out}"\nformat = "txt"\n'
        )


def digest(contender):
    whole = hashlib.sha256()
    for path in contender.outputs():
        whole.update(path.read_bytes())
    return whole.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    parser.add_argument("--text", required=True)
    parser.add_argument("--pattern", choices=PATTERNS, help="one of the patterns; all if not given")
    args = parser.parse_args()
    source = pathlib.Path(args.text).absolute()
    for pattern in [args.pattern] if args.pattern else list(PATTERNS):
        args.pattern, expected = pattern, []
        with workplace(args, "grep") as home:

            def check(contender):
                found = digest(contender)
                expected.append(found)
                if found != expected[0]:
                    raise SystemExit(f"{contender.name} finds other lines than the first, for {pattern}")

            contest((Own, RipGrep, GnuGrep), home, args, source, check, lambda: f"{pattern} `{PATTERNS[pattern][0]}` in {source.stat().st_size} bytes; {args.threads} threads; the lines are equal")


if __name__ == "__main__":
    main()
