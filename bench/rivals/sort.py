#!/usr/bin/env python3
"""Sorting a file of 100-byte records by their first ten bytes: Raftwerk beside GNU sort, Polars and DuckDB, in one run on the same cores.

    cargo build --release -p raftwerk
    python3 -m venv VENV && VENV/bin/pip install polars duckdb
    VENV/bin/python bench/rivals/sort.py --raftwerk target/release/raftwerk [--records 10000000] [--turns 3] [--threads 2] [--dir DIR]
    python3 bench/rivals/sort.py --make 10000000 records.bin        # the input alone
    python3 bench/rivals/sort.py --records 100000000 --budget 256   # 10 GB with 256 MiB of memory, against GNU sort with the same; 40 GB of disk

A record is a key of ten letters, 89 letters and a newline, so that every contender reads the same file: to Raftwerk they are binary records, to the others
lines. All sort by the first ten bytes, file to file, with so many threads. How turns are timed: `contest.py`. Outputs are compared before a time is
printed: the keys must rise, and the records must be those of the input (a sum of their hashes); Raftwerk's must be GNU sort's (stable) to the byte.

With a budget GNU sort gets it as `-S` and Raftwerk as `worker start --memory`. Memory is then what the contender's processes (Raftwerk: agent and executor)
held: anonymous memory and mapped files, input included, the code of the programs not (`smaps`, every 50 ms); it is compared with the budget, and the outputs with
each other alone.
"""

import argparse
import hashlib
import os
import pathlib

from contest import Engine, Footprint, Program, Raftwerk, contest, options, tree, workplace

RECORD, KEY, PIECE = 100, 10, 100_000


def make(path, count):
    """Records of chance, the same every time: letters of a keyed hash (SHAKE-128), so that nothing can be compressed or guessed."""
    letters = bytes(65 + value % 26 for value in range(256))
    with open(path, "wb") as out:
        for first in range(0, count, PIECE):
            here = min(PIECE, count - first)
            text = bytearray(hashlib.shake_128(f"records from {first}".encode()).digest(here * RECORD).translate(letters))
            text[RECORD - 1 :: RECORD] = b"\n" * here
            out.write(text)
        out.flush()
        os.fsync(out.fileno())


def pieces(paths):
    for path in paths:
        with open(path, "rb") as file:
            while piece := file.read(RECORD * PIECE):
                if len(piece) % RECORD:
                    raise SystemExit(f"{path} does not hold whole records")
                yield piece


def fingerprint(paths):
    """(number, sum of hashes, whether keys rise, SHA-256 of the bytes)"""
    number, total, rises, before, whole = 0, 0, True, b"", hashlib.sha256()
    for piece in pieces(paths):
        whole.update(piece)
        for at in range(0, len(piece), RECORD):
            record = piece[at : at + RECORD]
            total = (total + hash_of(record)) % 2**64
            rises, before = rises and before <= record[:KEY], record[:KEY]
        number += len(piece) // RECORD
    return number, total, rises, whole.hexdigest()


def hash_of(record):
    return int.from_bytes(hashlib.blake2b(record, digest_size=8).digest(), "little")


class GnuSort(Program):
    name, program = "GNU sort", "sort"

    def command(self):
        half = f"{max(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // 2 >> 20, 64)}M"
        memory = f"{self.args.budget}M" if self.args.budget else half
        return ["sort", "-s", f"-k1.1,1.{KEY}", f"--parallel={self.args.threads}", "-S", memory, "-T", self.home, "-o", self.out, self.source]

    def measured(self):
        return within_budget(self, super().measured) if self.args.budget else super().measured()


class Polars(Engine):
    name, module = "Polars", "polars"
    code = """
import polars as pl
def work(source, out, threads):
    lines = pl.scan_csv(source, has_header=False, separator='\\x01', quote_char=None, new_columns=['line'], schema={'line': pl.String})
    key = pl.col('line').str.slice(0, 10)
    lines.sort(key).sink_csv(out, include_header=False, separator='\\x01', quote_style='never')
"""


class DuckDb(Engine):
    name, module = "DuckDB", "duckdb"
    code = """
import duckdb
def work(source, out, threads):
    db = duckdb.connect()
    db.execute(f"SET threads = {threads}; SET preserve_insertion_order = true")
    db.execute(f\"\"\"COPY (SELECT line FROM read_csv('{source}', header = false, delim = '\\x01', quote = '', escape = '', columns = {{'line': 'VARCHAR'}},
        auto_detect = false) ORDER BY line[1:10]) TO '{out}' (FORMAT csv, HEADER false, DELIMITER '\\x01', QUOTE '', ESCAPE '')\"\"\")
"""


class Own(Raftwerk):
    parts = "part-*.bin"

    def start(self):
        if self.args.budget:
            self.worker_flags = ("--memory", f"{self.args.budget // self.args.workers}MiB")
        super().start()

    def sizes(self):
        """(line of the job file for the length of a split, partitions)"""
        if not self.args.budget:
            return "", 8 * self.args.threads
        # Half of it or 64 MiB are the worker's own; a task takes its split, its runs and 16 bytes for each record.
        budget = (self.args.budget // self.args.workers) << 20
        thread = (budget - min(64 << 20, budget // 2)) // max(self.args.threads // self.args.workers, 1)
        split = 1 << max(int((thread - (3 << 20)) / 2.2).bit_length() - 1, 16)
        return f'split = "{split}"\n', -(-self.args.records * RECORD // (thread // 2))

    def job(self):
        split, partitions = self.sizes()
        return (
            f'[input]\nfiles = ["{self.source}"]\nformat = "records"\nrecord = {RECORD}\n{split}[map]\nkernel = "sort"\nparams = {{ key_bytes = {KEY} }}\n'
            f'[reduce]\npartitions = {partitions}\n[output]\npath = "{self.out}"\n'
        )

    def measured(self):
        return within_budget(self, super().measured) if self.args.budget else super().measured()


def within_budget(contender, measured):
    """The same, with memory as a budget counts it. Raftwerk's scheduler and client are no part of the data work and stay out."""
    def roots():
        if isinstance(contender, Own):
            return [daemon.pid for daemon in contender.daemons[1:]]
        named = lambda pid: pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == contender.program
        return [pid for pid in tree(os.getpid())[1:] if named(pid)]

    with Footprint(roots) as footprint:
        wall, processor, _ = measured()
    if footprint.most > contender.args.budget << 10 and isinstance(contender, Own):
        print(f"the budget was NOT kept: {footprint.most / 1024:.0f} of {contender.args.budget} MiB")
    return wall, processor, footprint.most << 10


def digest(paths):
    whole = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while piece := file.read(1 << 22):
                whole.update(piece)
    return whole.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--budget", type=int, metavar="MIB", help="of memory, for GNU sort and Raftwerk each; the others are left out")
    parser.add_argument("--make", nargs=2, metavar=("RECORDS", "FILE"), help="write an input and do nothing else")
    args = parser.parse_args()
    if args.make:
        return make(args.make[1], int(args.make[0]))
    with workplace(args, "sort") as home:
        source = home / "records.bin"
        make(source, args.records)
        wanted, stable = args.budget or fingerprint([source])[:2], []

        def check(contender):
            if args.budget:
                # A hundred million records one by one take Python minutes; of two programs that agree to the byte one would have to be wrong as well.
                found = digest(contender.outputs())
                if sum(path.stat().st_size for path in contender.outputs()) != source.stat().st_size or stable not in ([], [found]):
                    raise SystemExit(f"{contender.name}'s output is not that of the contender before")
                stable[:] = [found]
                return
            number, total, rises, whole = fingerprint(contender.outputs())
            if (number, total) != wanted or not rises:
                raise SystemExit(f"{contender.name} is wrong: {number} of {wanted[0]} records, sorted: {rises}, the same ones: {total == wanted[1]}")
            if isinstance(contender, GnuSort):
                stable[:] = [whole]
            if isinstance(contender, Own) and stable not in ([], [whole]):
                raise SystemExit("Raftwerk's output is not that of a stable sort")

        size = f"{args.records * RECORD / 1e9:.2f} GB"
        title = f"{args.records} records of {RECORD} bytes ({size}), key of {KEY}; {args.threads} threads, {args.workers} workers; outputs compared"
        if args.budget:
            title += f"; budget {args.budget} MiB"
        contest((GnuSort, Own) if args.budget else (GnuSort, Own, Polars, DuckDb), home, args, source, check, lambda: title)


if __name__ == "__main__":
    main()
