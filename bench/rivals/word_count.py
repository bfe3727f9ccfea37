#!/usr/bin/env python3
"""Counting the words of 1 GiB of real text: Raftwerk beside DuckDB, Polars, mawk and Spark, in one run on the same cores.

    cargo build --release -p raftwerk
    python3 -m venv VENV && VENV/bin/pip install polars duckdb pyspark    # Spark needs Java 17 or newer
    VENV/bin/python bench/rivals/word_count.py [--bytes 1073741824] [--turns 3] [--threads 2] [--workers 1] [--dir DIR] [--only NAME]
    python3 bench/rivals/word_count.py --make FILE                         # the input alone
    VENV/bin/python bench/rivals/word_count.py --text FILE                 # a text of yours; then the rest is not made

A word is a longest run of bytes without ASCII white space, to everyone. Each writes `word,count` rows to a file (mawk: with a space between); the rows of all must
be the same (their number and a sum of hashes). How turns are timed: `contest.py`.

The text is what a machine with Rust has: sources of crates that Cargo has fetched and the toolchain's own documents, in the order of their paths, as far as they
are UTF-8 without control characters other than white space; carriage returns and form feeds become blanks, so that every contender's idea of a line is the same. If there is less
than asked for, it says so and takes what there is.
"""

import argparse
import csv
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

from contest import Contender, Engine, Program, Raftwerk, contest, options, workplace

KINDS = (".rs", ".md", ".txt", ".toml", ".html", ".json", ".c", ".h", ".cpp", ".hpp", ".py", ".wgsl", ".hlsl", ".js", ".xml")
ODD = bytes(set(range(32)) - set(b"\t\n\r\f")) + b"\x7f"


def make(path, wanted):
    home = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    root = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()
    places = [home / "registry/src", pathlib.Path(root) / "share/doc", pathlib.Path(root) / "lib/rustlib"]
    # By name within a place, whatever the directory that a registry's sources lie in.
    files = [file for place in places for file in sorted(place.rglob("*")) if file.suffix in KINDS and file.is_file() and not file.is_symlink()]
    left = wanted
    with open(path, "wb") as out:
        for file in files:
            text = file.read_bytes()
            if text.translate(None, ODD) != text:
                continue
            try:
                text.decode()
            except UnicodeDecodeError:
                continue
            text = text.replace(b"\r", b" ").replace(b"\f", b" ")
            if not text.endswith(b"\n"):
                text += b"\n"
            if len(text) > left:
                # Whole lines, so that nothing is cut inside a character.
                text = text[: text.rfind(b"\n", 0, left) + 1]
                left = len(text)
            out.write(text)
            left -= len(text)
            if left <= 0:
                break
    if left > 0:
        print(f"there are only {wanted - left} bytes of text here", file=sys.stderr)


class DuckDb(Engine):
    name, module = "DuckDB", "duckdb"
    code = """
import duckdb
def work(source, out, threads):
    db = duckdb.connect()
    db.execute(f"SET threads = {threads}; SET preserve_insertion_order = false")
    lines = f\"\"\"read_csv('{source}', header = false, delim = '\\x01', quote = '', escape = '', columns = {{'line': 'VARCHAR'}}, auto_detect = false,
        max_line_size = 134217728, buffer_size = 402653184)\"\"\"
    words = f"SELECT unnest(string_split(replace(line, chr(9), ' '), ' ')) AS word FROM {lines}"
    db.execute(f"COPY (SELECT word, count(*) FROM ({words}) WHERE word <> '' GROUP BY word) TO '{out}' (FORMAT csv, HEADER false)")
"""


class Polars(Engine):
    name, module = "Polars", "polars"
    code = """
import polars as pl
def work(source, out, threads):
    lines = pl.scan_csv(source, has_header=False, separator='\\x01', quote_char=None, new_columns=['line'], schema={'line': pl.String})
    words = lines.select(pl.col('line').str.replace_all('\\t', ' ', literal=True).str.split(' ').explode().alias('word')).filter(pl.col('word') != '')
    words.group_by('word').len().sink_csv(out, include_header=False)
"""


class Spark(Engine):
    """A DataFrame on as many local threads. Its session, and so its virtual machine, starts before the clock; the machine's processor time counts."""

    name, module = "Spark", "pyspark"
    around = """
import json, os, sys, time
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
source, out, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
settings = {"spark.driver.memory": "8g", "spark.sql.shuffle.partitions": 4 * threads, "spark.ui.enabled": "false", "spark.local.dir": os.path.dirname(out)}
builder = SparkSession.builder.master(f"local[{threads}]")
for name, value in settings.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
def usage(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    own = int(fields[11]) + int(fields[12])
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return own + sum(usage(int(child)) for child in children.read().split())
before, begin = usage(os.getpid()), time.perf_counter()
lines = spark.read.text(source)
words = lines.select(F.explode(F.split(F.translate("value", chr(9), " "), " ")).alias("word")).where("word != ''")
words.groupBy("word").count().write.options(escape='"', ignoreLeadingWhiteSpace=False, ignoreTrailingWhiteSpace=False).csv(out)
for name in os.listdir(out) + ["."]:
    descriptor = os.open(os.path.join(out, name), os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
wall = time.perf_counter() - begin
print(json.dumps([wall, (usage(os.getpid()) - before) / os.sysconf("SC_CLK_TCK")]))
"""

    def outputs(self):
        return sorted(self.out.glob("part-*.csv"))

    def clear(self):
        # A directory of this run's own, below a temporary one.
        if self.out.exists():
            shutil.rmtree(self.out)


class Mawk(Program):
    name, program, probe = "mawk", "mawk", ["-W", "version"]

    def command(self):
        return ["sh", "-c", "mawk '{ for (i = 1; i <= NF; i++) n[$i]++ } END { for (w in n) print w, n[w] }' \"$1\" > \"$2\"", "sh", self.source, self.out]


class Own(Raftwerk):
    def job(self):
        return (
            f'[input]\nfiles = ["{self.source}"]\nsplit = "{self.args.split}"\n[map]\nkernel = "word_count"\n'
            f'[reduce]\nkernel = "sum_by_key"\npartitions = {self.args.partitions}\n[output]\npath = "{self.out}"\nformat = "csv"\n'
        )


def rows(contender: Contender):
    for path in contender.outputs():
        if isinstance(contender, Mawk):
            with open(path, "rb") as file:
                for line in file:
                    word, _, count = line.rstrip(b"\n").rpartition(b" ")
                    yield word, int(count)
        else:
            with open(path, newline="", encoding="utf-8") as file:
                table = csv.reader(file)
                if isinstance(contender, Own):
                    next(table)  # the names of the columns
                for word, count in table:
                    yield word.encode(), int(count)


def fingerprint(contender):
    number, words, total = 0, 0, 0
    for word, count in rows(contender):
        number, words = number + 1, words + count
        total = (total + int.from_bytes(hashlib.blake2b(b"%d %s" % (count, word), digest_size=8).digest(), "little")) % 2**64
    return number, words, total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    parser.add_argument("--bytes", type=int, default=1 << 30)
    parser.add_argument("--text", help="count the words of this file")
    parser.add_argument("--make", metavar="FILE", help="write an input and do nothing else")
    parser.add_argument("--split", default="16MiB")
    parser.add_argument("--partitions", type=int, default=8)
    args = parser.parse_args()
    csv.field_size_limit(1 << 30)
    if args.make:
        return make(args.make, args.bytes)
    with workplace(args, "words") as home:
        source = pathlib.Path(args.text).absolute() if args.text else home / "text"
        if not args.text:
            make(source, args.bytes)
        expected = []

        def check(contender):
            found = fingerprint(contender)
            expected.append(found)
            if found != expected[0]:
                sys.exit(f"{contender.name} counts otherwise: {found}, the first counted {expected[0]} (distinct words, words, sum of hashes)")

        def title():
            return f"{source.stat().st_size} bytes, {expected[0][1]} words, {expected[0][0]} distinct; {args.threads} threads, {args.workers} workers; the results are equal"

        contest((Own, DuckDb, Polars, Mawk, Spark), home, args, source, check, title)


if __name__ == "__main__":
    main()
