#!/usr/bin/env python3
"""Sorting a file of 100-byte records by their first ten bytes: Raftwerk beside GNU sort, Polars and DuckDB, in one run on the same cores.

    cargo build --release -p raftwerk
    python3 -m venv VENV && VENV/bin/pip install polars duckdb
    VENV/bin/python bench/rivals/sort.py --raftwerk target/release/raftwerk [--records 10000000] [--turns 3] [--threads 2] [--dir DIR]
    python3 bench/rivals/sort.py --make 10000000 records.bin        # the input alone

A record is a key of ten letters, 89 letters and a newline, so that every contender reads the same file: to Raftwerk they are binary records, to the others
lines. All sort by the first ten bytes, file to file, with so many threads. They take turns; before each the input is in the page cache and nothing waits
to be written; the time of each ends after its output and the directory that holds it are synced. Outputs are compared before a time is printed: the keys must rise, and the
records must be those of the input (a sum of their hashes); Raftwerk's must be GNU sort's (stable) to the byte. Medians count, and all turns are printed.

Raftwerk runs one scheduler and one worker, started before the clock; its time is that of `raftwerk submit --wait`, which ends when the output is published.
A contender that is not there is a row that says so.
"""

import argparse
import hashlib
import json
import os
import pathlib
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

RECORD, KEY, PIECE = 100, 10, 100_000


class Missing(Exception):
    """Why a contender cannot be had here."""


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


def sync(*paths):
    """What was written is on disk, and so are the names in its directory."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


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


class Contender:
    name = ""

    def __init__(self, home, args, source):
        self.home, self.args, self.source = pathlib.Path(home), args, source
        self.out = self.home / "out"

    def start(self):
        """What happens before the clock runs."""

    def command(self):
        raise NotImplementedError

    def outputs(self):
        return [self.out]

    def clear(self):
        self.out.unlink(missing_ok=True)

    def seconds(self):
        self.clear()
        os.sync()
        with open(self.source, "rb") as file:
            while file.read(1 << 22):
                pass
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin = time.perf_counter()
        done = subprocess.run([str(word) for word in self.command()], env=self.env(), capture_output=True, text=True)
        if done.returncode != 0:
            raise Missing(f"it ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-400:]}")
        sync(*self.outputs(), self.outputs()[0].parent)
        wall = time.perf_counter() - begin
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return wall, self.processor(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    def processor(self, of_children):
        return of_children

    def env(self):
        return {**os.environ, "LC_ALL": "C"}

    def stop(self):
        pass


class GnuSort(Contender):
    name = "GNU sort"

    def start(self):
        if not shutil.which("sort"):
            raise Missing("there is no `sort`")
        self.version = subprocess.run(["sort", "--version"], capture_output=True, text=True).stdout.splitlines()[0]

    def command(self):
        half = f"{max(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // 2 >> 20, 64)}M"
        return ["sort", "-s", f"-k1.1,1.{KEY}", f"--parallel={self.args.threads}", "-S", half, "-T", self.home, "-o", self.out, self.source]


class Python(Contender):
    """A program in this interpreter, in a process of its own."""

    module, program = "", ""

    def start(self):
        probe = subprocess.run([sys.executable, "-c", f"import {self.module}; print({self.module}.__version__)"], capture_output=True, text=True)
        if probe.returncode != 0:
            raise Missing(f"{sys.executable} -m pip install {self.module}")
        self.version = f"{self.module} {probe.stdout.strip()}"

    def command(self):
        return [sys.executable, "-c", self.program, self.source, self.out, self.args.threads]

    def env(self):
        return {**super().env(), "POLARS_MAX_THREADS": str(self.args.threads)}


class Polars(Python):
    name, module = "Polars", "polars"
    program = """
import sys, polars as pl
source, out, _ = sys.argv[1:]
lines = pl.scan_csv(source, has_header=False, separator='\\x01', quote_char=None, new_columns=['line'], schema={'line': pl.String})
key = pl.col('line').str.slice(0, 10)
lines.sort(key).sink_csv(out, include_header=False, separator='\\x01', quote_style='never')
"""


class DuckDb(Python):
    name, module = "DuckDB", "duckdb"
    program = """
import sys, duckdb
source, out, threads = sys.argv[1:]
db = duckdb.connect()
db.execute(f"SET threads = {threads}; SET preserve_insertion_order = true")
db.execute(f\"\"\"COPY (SELECT line FROM read_csv('{source}', header = false, delim = '\\x01', quote = '', escape = '', columns = {{'line': 'VARCHAR'}},
    auto_detect = false) ORDER BY line[1:10]) TO '{out}' (FORMAT csv, HEADER false, DELIMITER '\\x01', QUOTE '', ESCAPE '')\"\"\")
"""


class Raftwerk(Contender):
    name = "Raftwerk"

    def start(self):
        self.daemons = []
        self.program = pathlib.Path(self.args.raftwerk).absolute()
        if not self.program.exists():
            raise Missing(f"there is no {self.program}; cargo build --release -p raftwerk")
        scheduler = self.ready("scheduler", ["scheduler", "start", "--bootstrap", "--listen", "127.0.0.1:0"])
        token = ["--token-file", self.home / "scheduler/join-token"]
        self.ready("worker", ["worker", "start", "--cpus", self.args.threads, "--no-gpu", "--join", scheduler["address"], *token])
        self.address = scheduler["address"]
        self.version = subprocess.run([self.program, "--version"], capture_output=True, text=True).stdout.strip()
        self.job = self.home / "sort.toml"
        self.job.write_text(
            f'[input]\nfiles = ["{self.source}"]\nformat = "records"\nrecord = {RECORD}\n[map]\nkernel = "sort"\nparams = {{ key_bytes = {KEY} }}\n'
            f'[reduce]\npartitions = {8 * self.args.threads}\n[output]\npath = "{self.out}"\n'
        )

    def ready(self, name, command):
        log = open(self.home / f"{name}.log", "ab")
        words = [self.program, "-o", "json", *command, "--name", name, "--data-dir", self.home / name]
        daemon = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True)
        self.daemons.append(daemon)
        line = daemon.stdout.readline()
        if not line:
            raise Missing(f"its {name} does not start: {(self.home / f'{name}.log').read_text()[-400:]}")
        return json.loads(line)

    def env(self):
        credential = self.home / "scheduler/admin.pem"
        own = {"RAFTWERK_ADDRESS": self.address, "RAFTWERK_CREDENTIAL": str(credential), "RAFTWERK_CONFIG": str(self.home / "contexts.toml")}
        return {**super().env(), **own}

    def command(self):
        self.before = self.ticks()
        return [self.program, "-q", "submit", "--wait", self.job]

    def ticks(self):
        """Processor time of the daemons and of the worker's executors, which are their children."""
        total = 0
        for daemon in self.daemons:
            for pid in tree(daemon.pid):
                try:
                    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    total += int(fields[11]) + int(fields[12])
                except OSError:
                    pass
        return total / os.sysconf("SC_CLK_TCK")

    def processor(self, of_children):
        return of_children + self.ticks() - self.before

    def outputs(self):
        return sorted(self.out.glob("part-*.bin"))

    def clear(self):
        # A directory of this run's own, below a temporary one.
        if self.out.exists():
            shutil.rmtree(self.out)

    def stop(self):
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self.daemons:
            daemon.wait(timeout=30)


def tree(pid):
    """A process and its descendants."""
    found = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in task.read_text().split():
                found += tree(int(child))
        except OSError:
            pass
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raftwerk", default="target/release/raftwerk")
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dir", help="where to work: a file system with room for four times the input; a temporary directory in it is used")
    parser.add_argument("--make", nargs=2, metavar=("RECORDS", "FILE"), help="write an input and do nothing else")
    args = parser.parse_args()
    if args.make:
        return make(args.make[1], int(args.make[0]))
    with tempfile.TemporaryDirectory(prefix="raftwerk-sort-", dir=args.dir) as home:
        source = pathlib.Path(home) / "records.bin"
        make(source, args.records)
        wanted = fingerprint([source])[:2]
        there, rows = [], []
        try:
            for kind in (GnuSort, Raftwerk, Polars, DuckDb):
                own = pathlib.Path(home) / kind.__name__
                own.mkdir()
                contender = kind(own, args, source)
                try:
                    there.append(contender)
                    contender.start()
                except Missing as why:
                    there.remove(contender)
                    rows.append((contender.name, str(why)))
            times, stable = {contender: [] for contender in there}, None
            for _ in range(args.turns):
                for contender in list(there):
                    try:
                        times[contender].append(contender.seconds())
                    except Missing as why:
                        there.remove(contender)
                        rows.append((contender.name, str(why)))
                        continue
                    number, total, rises, digest = fingerprint(contender.outputs())
                    if (number, total) != wanted or not rises:
                        raise SystemExit(f"{contender.name} is wrong: {number} of {wanted[0]} records, sorted: {rises}, the same ones: {total == wanted[1]}")
                    if isinstance(contender, GnuSort):
                        stable = digest
                    if isinstance(contender, Raftwerk) and stable not in (None, digest):
                        raise SystemExit("Raftwerk's output is not that of a stable sort")
        finally:
            for contender in there:
                contender.stop()
        gigabytes = args.records * RECORD / 1e9
        print(f"{args.records} records of {RECORD} bytes ({gigabytes:.2f} GB), key of {KEY}, {args.threads} threads, page cache warm, outputs synced and compared")
        print(f"{'':<10} {'wall s':>8} {'CPU s':>8}   turns (wall)")
        for contender in there:
            walls, processors = zip(*times[contender])
            each = "  ".join(f"{wall:.2f}" for wall in walls)
            print(f"{contender.name:<10} {statistics.median(walls):>8.2f} {statistics.median(processors):>8.2f}   {each}   ({contender.version})")
        for name, why in rows:
            print(f"{name:<10} not measured: {why}")


if __name__ == "__main__":
    main()
