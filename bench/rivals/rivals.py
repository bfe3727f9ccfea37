#!/usr/bin/env python3
"""Raftwerk, HyperQueue with its journal, Ray and Dask under the same blows, in one run.

Every system gets two workers of one core each and 400 tasks that sleep 50 ms and then write one line. When 100 lines are there, nothing, the
head (Raftwerk: the leader of three) or one worker is killed with SIGKILL; a dead head is started again after a second, together with workers
that ended for want of it, as an init system would do it. A dead worker stays dead. Counted are lines, not what a system says of itself:

  lost    tasks without a line when nothing more comes, or the time is over
  twice   lines beyond the first of a task
  again   of these, tasks that were finished before the blow
and the seconds from the first task's start to the first line of the last task, and to the client's answer.

    python3 bench/rivals/rivals.py --raftwerk target/release/raftwerk [--hq PATH] [--only raftwerk,ray] [--limit 90]

Ray and Dask come from PyPI into a virtual environment below a temporary directory; `hq` is the one given, the one in PATH, or the release on
GitHub. A system that cannot be had is a row that says why.
"""

import argparse
import calendar
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request

TASKS, SLEEP, BLOW_AT = 400, 0.05, 100
VERSIONS = {"ray": "ray==2.60.0", "dask": "distributed==2026.8.0"}
HQ_VERSION = "v0.27.0"
HQ_URL = f"https://github.com/It4innovations/hyperqueue/releases/download/{HQ_VERSION}/hq-{HQ_VERSION}-linux-x64.tar.gz"


class Missing(Exception):
    """Why a system cannot be had here."""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


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


def kill(process):
    """SIGKILL for a daemon and everything it started, as when its machine loses power."""
    pids = tree(process.pid)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGSTOP)
        except OSError:
            pass
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    process.wait()


class System:
    name = ""

    def __init__(self, home, args):
        self.home, self.args = pathlib.Path(home), args
        self.lines_file = self.home / "lines"
        self.lines_file.touch()
        self.daemons = {}

    def spawn(self, name, command, **more):
        log = open(self.home / f"{name}.log", "ab")
        env = {**os.environ, **more.pop("env", {})}
        stdin = subprocess.DEVNULL
        self.daemons[name] = subprocess.Popen(
            [str(word) for word in command], stdin=stdin, stdout=more.pop("stdout", log), stderr=log, env=env, start_new_session=True, **more
        )
        return self.daemons[name]

    def lines(self):
        """(task, unix seconds) of every finished execution so far."""
        rows = [line.split() for line in self.lines_file.read_text().splitlines()]
        return [(int(row[0]), float(row[1])) for row in rows if len(row) == 2]

    def client(self):
        """Starts the client that submits and waits."""
        raise NotImplementedError

    def ask_again(self):
        """What a user does whose client ended with an error: waits for the same job, where the system knows it still."""
        return None

    def stop(self):
        for process in self.daemons.values():
            if process.poll() is None:
                kill(process)


class Raftwerk(System):
    name = "Raftwerk"

    def ready(self, name, command):
        process = self.spawn(name, command, stdout=subprocess.PIPE, env={"RAFTWERK_LOG": "info,raftwerk_worker::output=debug"})
        return json.loads(process.stdout.readline())

    def start(self):
        self.program = pathlib.Path(self.args.raftwerk)
        if not self.program.exists():
            raise Missing(f"there is no {self.program}; cargo build --release -p raftwerk")
        token, self.addresses = self.home / "s1/join-token", []
        for n in (1, 2, 3):
            own = [self.program, "-o", "json", "scheduler", "start", "--name", f"s{n}", "--data-dir", self.home / f"s{n}", "--listen", "127.0.0.1:0"]
            how = ["--bootstrap"] if n == 1 else ["--join", self.addresses[0], "--token-file", token]
            self.addresses.append(self.ready(f"s{n}", own + how)["address"])
        for n in (1, 2):
            own = [self.program, "-o", "json", "worker", "start", "--name", f"w{n}", "--data-dir", self.home / f"w{n}", "--cpus", 1, "--no-gpu"]
            self.ready(f"worker{n}", own + ["--join", ",".join(self.addresses), "--token-file", token])
        self.env = {
            **os.environ,
            "RAFTWERK_ADDRESS": ",".join(self.addresses),
            "RAFTWERK_CREDENTIAL": str(self.home / "s1/admin.pem"),
            "RAFTWERK_CONFIG": str(self.home / "contexts.toml"),
        }
        self.version = subprocess.run([self.program, "--version"], capture_output=True, text=True).stdout.strip()

    def lines(self):
        found = []
        for n in (1, 2):
            for line in (self.home / f"worker{n}.log").read_text().splitlines():
                if "raftwerk_worker::output: task " in line:
                    at = time.strptime(line[:19], "%Y-%m-%dT%H:%M:%S")
                    found.append((int(line.split("task ")[1].split()[0]), calendar.timegm(at) + float(line[19:26])))
        return found

    def client(self):
        job = self.home / "job.toml"
        job.write_text(
            f'[job]\nname = "rivals"\n[input]\nrange = {{ start = 0, count = {TASKS}, tasks = {TASKS} }}\n[map]\nkernel = "noop"\n'
            f'params = {{ sleep_us = {int(SLEEP * 1e6)}, print = "yes" }}\n'
        )
        return subprocess.Popen([self.program, "-q", "submit", "--wait", job], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def head(self):
        view = subprocess.run([self.program, "-o", "json", "cluster", "show"], env=self.env, capture_output=True, text=True).stdout
        leader = next(replica["name"] for replica in json.loads(view)["replicas"] if replica["leader"])
        kill(self.daemons[leader])
        # The other two go on; nobody has to start anything.

    def restart_head(self):
        pass


class HyperQueue(System):
    name = "HyperQueue, with its journal"

    def start(self):
        self.program = self.args.hq or shutil.which("hq") or self.download()
        self.version = subprocess.run([self.program, "--version"], capture_output=True, text=True).stdout.strip()
        self.dir = self.home / "server"
        self.restart_head()

    def download(self):
        try:
            with urllib.request.urlopen(HQ_URL, timeout=30) as answer:
                (self.home / "hq.tar.gz").write_bytes(answer.read())
            with tarfile.open(self.home / "hq.tar.gz") as archive:
                archive.extract("hq", self.home, filter="data")
        except Exception as error:
            raise Missing(f"no `hq` in PATH, and {HQ_URL} gives: {error}; its wheel on PyPI has no server with a journal")
        return str(self.home / "hq")

    def hq(self, *words):
        return [self.program, "--server-dir", self.dir, *words]

    def restart_head(self):
        self.spawn("head", self.hq("server", "start", "--journal", self.home / "journal"))
        deadline = time.time() + 30
        while subprocess.run(self.hq("server", "info"), capture_output=True).returncode != 0:
            if time.time() > deadline:
                raise Missing("its server does not start: " + (self.home / "head.log").read_text()[-300:])
            time.sleep(0.1)
        for name in ("worker1", "worker2"):
            worker = self.daemons.get(name)
            if worker is not None and worker.poll() is None:
                # Its server is another one now; it would end by itself after a while.
                kill(worker)
            self.spawn(name, self.hq("worker", "start", "--cpus", "1"))

    def client(self):
        task = f'sleep {SLEEP}; echo "$HQ_TASK_ID $(date +%s.%N)" >> {self.lines_file}'
        none = ["--stdout", "none", "--stderr", "none"]
        command = self.hq("submit", "--wait", "--array", f"0-{TASKS - 1}", *none, "--", "bash", "-c", task)
        return subprocess.Popen([str(w) for w in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.home)

    def ask_again(self):
        command = self.hq("job", "wait", "1")
        return subprocess.Popen([str(w) for w in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def head(self):
        kill(self.daemons["head"])


class Python(System):
    """Ray and Dask: their client is this file again, inside the virtual environment."""

    package = ""

    def install(self):
        venv = pathlib.Path(self.args.venv)
        python = venv / "bin/python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        found = subprocess.run([python, "-c", f"import {self.module}; print({self.module}.__version__)"], capture_output=True, text=True)
        if found.returncode != 0:
            tried = subprocess.run([venv / "bin/pip", "install", "-q", VERSIONS[self.package]], capture_output=True, text=True)
            if tried.returncode != 0:
                raise Missing("pip: " + tried.stderr.strip().splitlines()[-1])
            found = subprocess.run([python, "-c", f"import {self.module}; print({self.module}.__version__)"], capture_output=True, text=True)
        self.version, self.bin, self.python = f"{self.package} {found.stdout.strip()}", venv / "bin", python

    def client(self):
        command = [self.python, __file__, "--inside", self.package, "--address", self.address, "--lines", self.lines_file]
        env = {**os.environ, "RAY_DEDUP_LOGS": "0", "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen([str(w) for w in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)

    def head(self):
        kill(self.daemons["head"])


class Ray(Python):
    name, package, module = "Ray", "ray", "ray"

    def start(self):
        self.install()
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        # Paths of its sockets have to be short.
        self.tmp = tempfile.mkdtemp(prefix="rv", dir="/tmp")
        self.restart_head()

    def ray(self, *words):
        return [self.bin / "ray", "start", "--block", "--disable-usage-stats", "--object-store-memory", "80000000", *words]

    def restart_head(self):
        more = ["--head", "--port", self.port, "--num-cpus", 0, "--include-dashboard", "false", "--temp-dir", self.tmp]
        self.spawn("head", self.ray(*more))
        self.wait("Ray runtime started", "head")
        for name in ("worker1", "worker2"):
            if name not in self.daemons or self.daemons[name].poll() is not None:
                self.spawn(name, self.ray("--address", self.address, "--num-cpus", 1))
                self.wait("Ray runtime started", name)

    def wait(self, text, name):
        deadline = time.time() + 90
        while text not in (self.home / f"{name}.log").read_text():
            if time.time() > deadline or self.daemons[name].poll() is not None:
                raise Missing(f"`ray start` of {name}: " + (self.home / f"{name}.log").read_text()[-300:])
            time.sleep(0.2)

    def stop(self):
        super().stop()
        shutil.rmtree(self.tmp, ignore_errors=True)


class Dask(Python):
    name, package, module = "Dask", "dask", "distributed"

    def start(self):
        self.install()
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.restart_head()

    def restart_head(self):
        self.spawn("head", [self.bin / "dask", "scheduler", "--host", "127.0.0.1", "--port", self.port, "--no-dashboard"])
        for name in ("worker1", "worker2"):
            if name not in self.daemons or self.daemons[name].poll() is not None:
                more = ["--nthreads", 1, "--no-nanny", "--no-dashboard", "--local-directory", self.home]
                self.spawn(name, [self.bin / "dask", "worker", self.address, *more])


def inside(package, address, lines):
    """The client of Ray or Dask: submits, waits, and says what it was told."""

    def task(number):
        time.sleep(SLEEP)
        with open(lines, "a") as out:
            out.write(f"{number} {time.time()}\n")
        return number

    if package == "ray":
        import ray

        ray.init(address=address, log_to_driver=False)
        while ray.cluster_resources().get("CPU", 0) < 2:
            time.sleep(0.1)
        remote = ray.remote(num_cpus=1)(task)
        print("submitting", flush=True)
        total = sum(ray.get([remote.remote(n) for n in range(TASKS)]))
    else:
        from distributed import Client

        client = Client(address)
        client.wait_for_workers(2)
        print("submitting", flush=True)
        total = sum(client.gather(client.map(task, range(TASKS), pure=False)))
    assert total == TASKS * (TASKS - 1) // 2, f"the sum is {total}"
    print("done")


def last_words(text):
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith((" ", "[", "  "))]
    return (lines[-1] if lines else "").replace("|", "/")[:140]


def measure(system, blow, limit):
    """One job with one blow."""
    client = system.client()
    output = tempfile.TemporaryFile("w+")

    # A pipe that nobody reads would stop a client that talks much.
    def drain(pipe):
        for line in pipe:
            output.write(line)

    reader = threading.Thread(target=drain, args=(client.stdout,), daemon=True)
    reader.start()
    first = None
    while not (rows := system.lines()) and client.poll() is None:
        time.sleep(0.01)
    first = min(at for _, at in rows) if rows else time.time()
    struck = None
    while client.poll() is None and time.time() < first + limit:
        if blow and struck is None and len(system.lines()) >= BLOW_AT:
            struck = time.time()
            system.head() if blow == "head" else kill(system.daemons["worker1"])
            if blow == "head":
                time.sleep(1)
                system.restart_head()
        time.sleep(0.02)
    told = []
    answered = time.time()
    missing = TASKS - len({task for task, _ in system.lines()})
    if client.poll() is None:
        told.append(f"nothing within {limit:.0f} s")
        kill(client)
    else:
        reader.join(5)
        output.seek(0)
        told.append("done" if client.returncode == 0 else f"exit code {client.returncode}: {last_words(output.read())}")
        if missing:
            told[-1] += f" (with {missing} tasks not run)"
        if missing and blow == "head" and (again := system.ask_again()):
            try:
                text, _ = again.communicate(timeout=max(1, first + limit - time.time()))
                told.append(f"asked again: exit code {again.returncode} {last_words(text)}")
            except subprocess.TimeoutExpired:
                kill(again)
                told.append("asked again: nothing in time")
    # A client that was answered does not mean that nothing runs any more.
    quiet = -1
    while missing and quiet != len(system.lines()) and time.time() < first + limit:
        quiet = len(system.lines())
        time.sleep(6)
    rows = system.lines()
    before = {task for task, at in rows if struck and at < struck}
    counts = {}
    for task, at in rows:
        counts.setdefault(task, []).append(at)
    twice = sum(len(times) - 1 for times in counts.values())
    again = sum(1 for task in before if any(at > struck for at in counts[task]))
    if not struck and blow:
        told.append("the job was over before the blow")
    began = first - SLEEP
    whole = f"{max(min(times) for times in counts.values()) - began:.1f}" if len(counts) == TASKS else "never"
    return TASKS - len(counts), twice, again, whole, answered - began, "; ".join(told)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raftwerk", default="target/release/raftwerk")
    parser.add_argument("--hq", help="the program `hq`")
    parser.add_argument("--only", default="raftwerk,hyperqueue,ray,dask")
    parser.add_argument("--blows", default="none,head,worker")
    parser.add_argument("--limit", type=float, default=90)
    parser.add_argument("--venv", help="a virtual environment to use, or to make")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--lines", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        return inside(args.inside, args.address, args.lines)
    systems = {"raftwerk": Raftwerk, "hyperqueue": HyperQueue, "ray": Ray, "dask": Dask}
    unknown = [name for name in args.only.split(",") if name not in systems]
    if unknown:
        parser.error(f"--only knows {', '.join(systems)}, not {', '.join(unknown)}")
    unknown = [blow for blow in args.blows.split(",") if blow not in ("none", "head", "worker")]
    if unknown:
        parser.error(f"--blows knows none, head, worker, not {', '.join(unknown)}")
    if "raftwerk" in args.only.split(",") and not shutil.which(args.raftwerk):
        parser.error(f"--raftwerk {args.raftwerk} is no program; build it with: cargo build --release -p raftwerk")
    if args.hq and not shutil.which(args.hq):
        parser.error(f"--hq {args.hq} is no program")
    with tempfile.TemporaryDirectory(prefix="raftwerk-rivals-") as home:
        args.venv = args.venv or f"{home}/venv"
        print(f"{TASKS} tasks of {SLEEP * 1000:.0f} ms on 2 workers of one core; SIGKILL when {BLOW_AT} are done\n")
        print("| system | killed | lost | twice | again | last task done | client answered | what it was told |\n|---|---|---|---|---|---|---|---|", flush=True)
        for name in args.only.split(","):
            for blow in args.blows.split(","):
                place = pathlib.Path(home) / f"{name}-{blow}"
                place.mkdir()
                system = systems[name](place, args)
                try:
                    system.start()
                    lost, twice, again, whole, seconds, told = measure(system, None if blow == "none" else blow, args.limit)
                    print(f"| {system.version} | {blow} | {lost} | {twice} | {again} | {whole} | {seconds:.1f} | {told} |", flush=True)
                except Missing as why:
                    print(f"| {system.name} | - | | | | | | not run: {str(why).replace(chr(10), ' ').replace('|', '/')} |", flush=True)
                    break
                finally:
                    system.stop()


if __name__ == "__main__":
    main()
