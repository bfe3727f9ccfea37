"""What the comparisons of data work share: contenders that take turns on one input, what counts as their time, and the table at the end.

A turn: everything written before is on disk and the input is in the page cache; the contender runs; its time ends after its output, and the directory that
holds it, are synced. Processor time is that of its processes, user and system together. Memory is the most that all of them together held at one time
(`RssAnon` and `RssShmem`, looked at every 20 ms: pages of the input that are merely mapped or cached are nobody's). Outputs are compared by each script
before a time is printed. Medians count, and all turns are printed.

Raftwerk is one scheduler with its log on disk and one or more workers, started before the clock; its time is that of `raftwerk submit --wait`, which ends when
the output is published. Python's start and its imports are not counted for engines that are Python modules. A contender that is not there is a row that says so.
"""

import contextlib
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
import threading
import time


class Missing(Exception):
    """Why a contender cannot be had here."""


def sync(*paths):
    """What was written is on disk, and so are the names in its directory."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def tree(pid):
    """A process and its descendants."""
    found = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += tree(int(child))
    return found


def ticks(pids):
    """Processor seconds of processes that live."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


class Memory:
    """The most that processes held together, while this is open."""

    def __init__(self, roots):
        self.roots, self.most, self.over = roots, 0, threading.Event()

    def __enter__(self):
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()
        return self

    def watch(self):
        known, looked = [], 0
        while not self.over.wait(0.02):
            if time.perf_counter() - looked > 0.2:
                known, looked = [pid for root in self.roots() for pid in tree(root)], time.perf_counter()
            held = 0
            for pid in known:
                with contextlib.suppress(OSError):
                    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                        if line.startswith(("RssAnon", "RssShmem")):
                            held += int(line.split()[1])
            self.most = max(self.most, held)

    def __exit__(self, *_):
        self.over.set()
        self.watcher.join()


def held(pid):
    """KiB that a process holds: anonymous memory, and its share of mapped files, input included; the code of programs is not counted (`smaps`)."""
    program, total = os.readlink(f"/proc/{pid}/exe"), 0
    code = False
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            code = len(words) > 5 and (words[5] == program or ".so" in words[5])
        elif words[0] == ("Anonymous:" if code else "Pss:"):
            total += int(words[1])
    return total


class Footprint(Memory):
    """The same with mapped files, see `held`."""

    def watch(self):
        known, looked = [], 0
        while not self.over.wait(0.05):
            if time.perf_counter() - looked > 0.5:
                known, looked = [pid for root in self.roots() for pid in tree(root)], time.perf_counter()
            total = 0
            for pid in known:
                with contextlib.suppress(OSError, IndexError):
                    total += held(pid)
            self.most = max(self.most, total)


class Contender:
    """`turn` gives (wall seconds, processor seconds, bytes of memory); `outputs` the files that it wrote."""

    name = ""

    def __init__(self, home, args, source):
        self.home, self.args, self.source = pathlib.Path(home), args, pathlib.Path(source)
        self.out, self.version = self.home / "out", ""

    def start(self):
        """What happens before the clock runs."""

    def stop(self):
        pass

    def command(self):
        raise NotImplementedError

    def env(self):
        return {**os.environ, "LC_ALL": "C"}

    def outputs(self):
        return [self.out]

    def clear(self):
        self.out.unlink(missing_ok=True)

    def turn(self):
        self.clear()
        os.sync()
        with open(self.source, "rb") as file:
            while file.read(1 << 22):
                pass
        return self.measured()

    def run(self, command, roots=()):
        """(wall, processor, memory, what it said) of a command until its output is synced."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin = time.perf_counter()
        child = subprocess.Popen([str(word) for word in command], env=self.env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with Memory(lambda: [child.pid, *roots]) as memory:
            said, wrong = child.communicate()
        if child.returncode != 0:
            raise Missing(f"it ended with {child.returncode}: {(wrong or said).strip()[-400:]}")
        sync(*self.outputs(), self.outputs()[0].parent)
        wall = time.perf_counter() - begin
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, memory.most << 10, said

    def measured(self):
        return self.run(self.command())[:3]


class Program(Contender):
    """A program that writes its output to standard output or to a file that its command names."""

    program, probe = "", ["--version"]

    def start(self):
        if not shutil.which(self.program):
            raise Missing(f"there is no `{self.program}`")
        said = subprocess.run([self.program, *self.probe], capture_output=True, text=True)
        self.version = (said.stdout or said.stderr).splitlines()[0]


class Engine(Contender):
    """A Python module; `work(source, out, threads)` in `code` does it."""

    module, code = "", ""
    around = """
import json, os, resource, sys, time
def synced(path):
    for name in (path, os.path.dirname(path)):
        descriptor = os.open(name, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
source, out, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
usage = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
before, begin = usage(), time.perf_counter()
work(source, out, threads)
synced(out)
print(json.dumps([time.perf_counter() - begin, usage() - before]))
"""

    def start(self):
        probe = subprocess.run([sys.executable, "-c", f"import {self.module}; print({self.module}.__version__)"], capture_output=True, text=True)
        if probe.returncode != 0:
            raise Missing(f"{sys.executable} -m pip install {self.module}")
        self.version = f"{self.module} {probe.stdout.strip()}"

    def env(self):
        return {**super().env(), "POLARS_MAX_THREADS": str(self.args.threads)}

    def measured(self):
        _, _, memory, said = self.run([sys.executable, "-c", self.code + self.around, self.source, self.out, self.args.threads])
        wall, processor = json.loads(said.splitlines()[-1])  # an engine may have shown its progress before
        return wall, processor, memory


class Raftwerk(Contender):
    """`job()` is the text of its job file. `--workers N` workers share the threads."""

    name = "Raftwerk"
    parts = "part-*"
    worker_flags = ()

    def job(self):
        raise NotImplementedError

    def start(self):
        self.daemons = []
        self.program = pathlib.Path(self.args.raftwerk).absolute()
        if not self.program.exists():
            raise Missing(f"there is no {self.program}; cargo build --release -p raftwerk")
        self.address = self.ready("scheduler", ["scheduler", "start", "--bootstrap", "--listen", "127.0.0.1:0"])["address"]
        token = ["--token-file", self.home / "scheduler/join-token"]
        workers = getattr(self.args, "workers", 1)
        for number in range(workers):
            own = ["worker", "start", "--cpus", self.args.threads // workers, "--no-gpu", "--join", self.address, *token, *self.worker_flags]
            self.ready(f"worker{number + 1}", own)
        self.version = subprocess.run([self.program, "--version"], capture_output=True, text=True).stdout.strip()

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
        own = {"RAFTWERK_ADDRESS": self.address, "RAFTWERK_CREDENTIAL": str(self.home / "scheduler/admin.pem")}
        return {**super().env(), **own, "RAFTWERK_CONFIG": str(self.home / "contexts.toml")}

    def command(self):
        file = self.home / "job.toml"
        file.write_text(self.job())
        return [self.program, "-q", "submit", "--wait", file]

    def measured(self):
        pids = [daemon.pid for daemon in self.daemons]
        before = ticks(pid for root in pids for pid in tree(root))
        wall, client, memory, _ = self.run(self.command(), pids)
        return wall, client + ticks(pid for root in pids for pid in tree(root)) - before, memory

    def outputs(self):
        return sorted(self.out.glob(self.parts))

    def clear(self):
        # A directory of this run's own, below a temporary one.
        if self.out.exists():
            shutil.rmtree(self.out)

    def stop(self):
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self.daemons:
            daemon.wait(timeout=30)


def options(parser):
    parser.add_argument("--raftwerk", default="target/release/raftwerk", help="the program, built with --release")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of every contender; Raftwerk's workers share them")
    parser.add_argument("--workers", type=int, default=1, help="of Raftwerk")
    parser.add_argument("--dir", help="where to work: a file system with room for four times the input; a temporary directory in it is used")
    parser.add_argument("--only", action="append", help="a contender (may be repeated); all if not given")


@contextlib.contextmanager
def workplace(args, name):
    with tempfile.TemporaryDirectory(prefix=f"raftwerk-{name}-", dir=args.dir) as home:
        yield pathlib.Path(home)


def contest(kinds, home, args, source, check, title):
    """Turns of all contenders. `check(contender)` looks at its output and ends the program if it is wrong; `title()` says what it was about."""
    there, rows, times = [], [], {}
    wanted = [kind for kind in kinds if not args.only or kind.name.lower() in (only.lower() for only in args.only)]
    try:
        for kind in wanted:
            own = pathlib.Path(home) / kind.__name__
            own.mkdir(exist_ok=True)
            contender = kind(own, args, source)
            there.append(contender)
            try:
                contender.start()
            except Missing as why:
                there.remove(contender)
                rows.append((contender.name, str(why)))
        for _ in range(args.turns):
            for contender in list(there):
                try:
                    times.setdefault(contender, []).append(contender.turn())
                except Missing as why:
                    there.remove(contender)
                    rows.append((contender.name, str(why)))
                    continue
                check(contender)
                contender.clear()
    finally:
        for contender in there:
            contender.stop()
    print(title())
    print(f"{'':<12} {'wall s':>8} {'CPU s':>8} {'MiB':>8}   turns (wall)")
    for contender in there:
        walls, processors, memories = zip(*times[contender])
        each = "  ".join(f"{wall:.2f}" for wall in walls)
        middle = statistics.median
        print(f"{contender.name:<12} {middle(walls):>8.2f} {middle(processors):>8.2f} {middle(memories) / 2**20:>8.0f}   {each}   ({contender.version})")
    for name, why in rows:
        print(f"{name:<12} not measured: {why}")
