#!/usr/bin/env python3
"""`group_by` beside DuckDB and Polars: a file of `station;temperature` rows, as in the one billion row challenge, to minimum, mean, maximum and
number of rows of each of 413 stations, in one run on the same cores.

    cargo build --release -p raftwerk
    python3 -m venv VENV && VENV/bin/pip install polars duckdb
    VENV/bin/python bench/rivals/group_by.py [--rows 100_000_000] [--turns 3] [--threads 2] [--workers 1] [--dir DIR] [--only NAME] [--dedicated PROGRAM]

The file is made first (15 bytes a row). Each contender writes its result as CSV; how turns are timed: `contest.py`. All results are compared, row by row,
before a time is printed: minimum, maximum and count as they are, means to 1e-9.

`--dedicated` adds a program written for this one task, as the challenge wants it: it is given the file, on as many threads as the machine has, and prints `{name=min/mean/max, ..}` with one digit
behind the point (means are compared to 0.1, there are no counts). For example https://github.com/phip1611/1brc-rust, built with `RUSTFLAGS=-Ctarget-cpu=native`.
"""

import argparse
import csv
import random
import sys

from contest import Engine, Missing, Program, Raftwerk, contest, options, workplace

STATIONS = 413


def make(path, rows):
    """Names of 3 to 26 letters, a few of them not ASCII; temperatures with one digit behind the point, around a mean of each station's own."""
    rng = random.Random(413)
    letters = "abcdefghijklmnopqrstuvwxyz" * 4 + "äéőñ' "
    names = sorted({"".join(rng.choice(letters) for _ in range(rng.randint(3, 14 if n % 8 else 26))).strip().title() for n in range(STATIONS * 2)})
    stations = rng.sample([name for name in names if len(name) > 2], STATIONS)
    means = {name: rng.uniform(-20, 45) for name in stations}
    # A block of rows, repeated in a new order: quick to make, and as hard to guess for a processor's caches as the whole.
    block = [f"{name};{max(-99.9, min(99.9, rng.gauss(means[name], 10))):.1f}\n" for name in (rng.choice(stations) for _ in range(min(rows, 400_000)))]
    block = [line.replace(";-0.0", ";0.0").encode() for line in block]
    with open(path, "wb") as file:
        left = rows
        while left:
            rng.shuffle(block)
            file.write(b"".join(block[:left]))
            left -= min(left, len(block))


class DuckDb(Engine):
    name, module = "DuckDB", "duckdb"
    code = """
import duckdb
def work(source, out, threads):
    connection = duckdb.connect(config={"threads": threads})
    connection.execute(
        f"copy (select station, min(t) as low, avg(t) as mean, max(t) as high, count(*) as n from "
        f"read_csv('{source}', delim=';', header=false, columns={{'station': 'varchar', 't': 'decimal(4,1)'}}) group by station order by station) "
        f"to '{out}' (header, delimiter ',')")
"""


class Polars(Engine):
    name, module = "Polars", "polars"
    code = """
import polars as pl
def work(source, out, threads):
    rows = pl.scan_csv(source, separator=";", has_header=False, schema={"station": pl.String, "t": pl.Float64})
    t = pl.col("t")
    rows.group_by("station").agg(low=t.min(), mean=t.mean(), high=t.max(), n=pl.len()).sort("station").collect(engine="streaming").write_csv(out)
"""


class Dedicated(Program):
    name = "dedicated"

    def start(self):
        if not self.args.dedicated:
            raise Missing("--dedicated PROGRAM")
        self.version = self.args.dedicated.rsplit("/", 1)[-1]

    def command(self):
        return ["sh", "-c", '"$1" "$2" > "$3"', "sh", self.args.dedicated, self.source, self.out]

    def rows(self):
        for row in self.out.read_text(encoding="utf-8").splitlines()[0].strip("{}").split(", "):
            name, _, numbers = row.rpartition("=")
            yield (name, *map(float, numbers.split("/")))


class Own(Raftwerk):
    def job(self):
        return (
            f'[input]\nfiles = ["{self.source}"]\nseparator = ";"\nheader = false\ncolumns = ["station", "t"]\nquoted_newlines = false\n'
            '[map]\nkernel = "group_by"\n[map.params]\nby = "station"\naggregate = "min(t), mean(t), max(t), count"\n'
            f'[output]\npath = "{self.out}"\n'
        )


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [(name, float(low), float(mean), float(high), int(n)) for name, low, mean, high, n in list(csv.reader(file))[1:]]


def compare(name, found, expected):
    found, expected = (sorted(table, key=lambda row: row[0].encode()) for table in (found, expected))
    same = len(found) == len(expected) and all(
        a[0] == b[0] and a[1] == b[1] and abs(a[2] - b[2]) <= 1e-9 * max(1, abs(b[2])) and a[3:] == b[3:] for a, b in zip(found, expected)
    )
    if not same:
        wrong = next(((a, b) for a, b in zip(found, expected) if a != b), (len(found), len(expected)))
        sys.exit(f"{name} has another result than the first: {wrong}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    parser.add_argument("--dedicated", metavar="PROGRAM", help="a program for this one task")
    parser.add_argument("--rows", type=lambda text: int(text.replace("_", "")), default=100_000_000)
    parser.add_argument("--make", nargs=2, metavar=("ROWS", "FILE"), help="write an input and do nothing else")
    args = parser.parse_args()
    if args.make:
        return make(args.make[1], int(args.make[0].replace("_", "")))
    with workplace(args, "groups") as home:
        source = home / "measurements.txt"
        make(source, args.rows)
        expected = []

        def check(contender):
            if isinstance(contender, Dedicated):
                found = sorted(contender.rows(), key=lambda row: row[0].encode())
                wanted = sorted(expected[0], key=lambda row: row[0].encode())
                if len(found) != len(wanted) or any(
                    a[0] != b[0] or a[1] != b[1] or abs(a[2] - b[2]) > 0.1 or a[3] != b[3] for a, b in zip(found, wanted)
                ):
                    sys.exit("the dedicated program has another result than the first")
                return
            (path,) = contender.outputs()
            found = rows(path)
            expected.append(found)
            compare(contender.name, found, expected[0])

        def title():
            return f"{args.rows} rows, {source.stat().st_size} bytes, {len(expected[0])} stations; {args.threads} threads, {args.workers} workers; the results are equal"

        contest((Own, DuckDb, Polars, Dedicated), home, args, source, check, title)


if __name__ == "__main__":
    main()
