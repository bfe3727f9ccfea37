#!/usr/bin/env python3
"""`group_by` beside DuckDB and Polars: a file of `station;temperature` rows, as in the one billion row challenge, to minimum, mean, maximum and
number of rows of each of 413 stations, in one run on the same two cores.

    cargo build --release -p raftwerk
    python3 -m venv VENV && VENV/bin/pip install duckdb==2.0.0 polars==2.1.0
    VENV/bin/python bench/rivals/group_by.py --raftwerk target/release/raftwerk --rows 100_000_000

The file is made first (15 bytes a row) and read once, so that it is in the page cache. The contenders take turns. Each writes its result as CSV, and
its time ends when the result is on disk. Raftwerk is one scheduler replica and one worker with two cores, started before; its time is that of
`raftwerk submit --wait`, its CPU time that of client, scheduler and worker together. DuckDB and Polars are processes of their own; starting Python and
importing is not counted. All results are compared, row by row, before a time is printed: minimum, maximum and count as they are, means to 1e-9.
Printed are medians, with all turns.
"""

import argparse
import csv
import json
import os
import pathlib
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

STATIONS = 413
CORES = 2

DUCKDB = """
import duckdb
connection = duckdb.connect(config={"threads": %d})
def work(data, out):
    connection.execute(
        f"copy (select station, min(t) as low, avg(t) as mean, max(t) as high, count(*) as n from "
        f"read_csv('{data}', delim=';', header=false, columns={{'station': 'varchar', 't': 'decimal(4,1)'}}) group by station order by station) "
        f"to '{out}' (header, delimiter ',')")
version = "DuckDB " + duckdb.__version__
""" % CORES

POLARS = """
import polars as pl
def work(data, out):
    rows = pl.scan_csv(data, separator=";", has_header=False, schema={"station": pl.String, "t": pl.Float64})
    t = pl.col("t")
    rows.group_by("station").agg(low=t.min(), mean=t.mean(), high=t.max(), n=pl.len()).sort("station").collect(engine="streaming").write_csv(out)
version = "Polars " + pl.__version__
"""

# What every engine's process does around its work.
AROUND = """
import os, sys, time, json, resource
def synced(path):
    for name in (path, os.path.dirname(path)):
        descriptor = os.open(name, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
data, out = sys.argv[1:]
usage = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
before, start = usage(), time.perf_counter()
work(data, out)
synced(out)
print(json.dumps({"wall": time.perf_counter() - start, "cpu": usage() - before, "version": version}))
"""


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


def tree(pid):
    """A process and its descendants."""
    found = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += tree(int(child))
    return found


def cpu_seconds(pids):
    ticks = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Raftwerk:
    def __init__(self, program, home):
        self.program, self.home, self.daemons = program, home, []
        self.version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        address = self.start("s1", ["scheduler", "start", "--name", "s1", "--data-dir", home / "s1", "--listen", "127.0.0.1:0", "--bootstrap"])["address"]
        worker = ["worker", "start", "--name", "w1", "--data-dir", home / "w1", "--cpus", CORES, "--no-gpu"]
        self.start("w1", worker + ["--join", address, "--token-file", home / "s1/join-token"])
        self.env = {**os.environ, "RAFTWERK_ADDRESS": address, "RAFTWERK_CREDENTIAL": str(home / "s1/admin.pem"), "RAFTWERK_CONFIG": str(home / "c.toml")}

    def start(self, name, words):
        log = open(self.home / f"{name}.log", "wb")
        command = [str(word) for word in [self.program, "-o", "json"] + words]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        self.daemons.append(process)
        line = process.stdout.readline()
        if not line:
            sys.exit(f"{name} did not start: see {log.name}\n" + (self.home / f"{name}.log").read_text())
        return json.loads(line)

    def turn(self, data, out):
        job = self.home / f"{out.name}.toml"
        job.write_text(
            f'[input]\nfiles = ["{data}"]\nseparator = ";"\nheader = false\ncolumns = ["station", "t"]\nquoted_newlines = false\n'
            '[map]\nkernel = "group_by"\n[map.params]\nby = "station"\naggregate = "min(t), mean(t), max(t), count"\n'
            f'[output]\npath = "{out}"\n'
        )
        pids = [pid for daemon in self.daemons for pid in tree(daemon.pid)]
        before, children = cpu_seconds(pids), resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        done = subprocess.run([self.program, "submit", str(job), "--wait"], env=self.env, capture_output=True, text=True)
        wall = time.perf_counter() - start
        if done.returncode != 0:
            sys.exit(f"the job failed: {done.stdout}{done.stderr}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        client = after.ru_utime - children.ru_utime + after.ru_stime - children.ru_stime
        return wall, cpu_seconds(pids) - before + client, out / "part-00000.csv"

    def stop(self):
        for daemon in reversed(self.daemons):
            daemon.terminate()
            daemon.wait()


class Engine:
    def __init__(self, name, code):
        self.name, self.code, self.version = name, code, name

    def turn(self, data, out):
        done = subprocess.run([sys.executable, "-c", self.code + AROUND, str(data), str(out)], env={**os.environ, "POLARS_MAX_THREADS": str(CORES)}, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{self.name} failed: {done.stderr}")
        said = json.loads(done.stdout)
        self.version = said["version"]
        return said["wall"], said["cpu"], out

    def stop(self):
        pass


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
    parser.add_argument("--raftwerk", required=True, type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("--rows", type=lambda text: int(text.replace("_", "")), default=100_000_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", default="raftwerk,duckdb,polars", help="contenders, with commas between")
    parser.add_argument("--dir", help="where the temporary directory is made; needs 16 bytes a row")
    args = parser.parse_args()
    only = args.only.split(",")
    with tempfile.TemporaryDirectory(prefix="group-by-", dir=args.dir) as home:
        home = pathlib.Path(home).resolve()
        data = home / "measurements.txt"
        make(data, args.rows)
        contenders = {name: Engine(name, code) for name, code in (("duckdb", DUCKDB), ("polars", POLARS)) if name in only}
        if "raftwerk" in only:
            contenders = {"raftwerk": Raftwerk(args.raftwerk, home), **contenders}
        try:
            with open(data, "rb") as file:
                while file.read(1 << 24):
                    pass
            os.sync()
            turns, expected = {name: [] for name in contenders}, None
            for turn in range(args.turns):
                for name, contender in contenders.items():
                    wall, cpu, out = contender.turn(data, home / f"{name}-{turn}")
                    found = rows(out)
                    expected = expected or found
                    compare(name, found, expected)
                    turns[name].append((wall, cpu))
        finally:
            for contender in contenders.values():
                contender.stop()
        print(f"{args.rows} rows, {data.stat().st_size} bytes, {len(expected)} stations, {CORES} cores; the results are equal; seconds")
        print(f"{'':<24} {'wall':>8} {'cpu':>8}   turns (wall / cpu)")
        for name, times in turns.items():
            wall, cpu = (statistics.median(column) for column in zip(*times))
            each = "  ".join(f"{a:.2f} / {b:.2f}" for a, b in times)
            print(f"{contenders[name].version:<24} {wall:>8.2f} {cpu:>8.2f}   {each}")


if __name__ == "__main__":
    main()
