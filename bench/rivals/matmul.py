#!/usr/bin/env python3
"""The CPU twin of `matmul` beside OpenBLAS, by way of NumPy, in one run on the same two cores.

    cargo bench -p raftwerk-kernels --no-run        # prints the path of the program
    python3 -m venv VENV && VENV/bin/pip install numpy
    VENV/bin/python bench/rivals/matmul.py --kernels PATH

Both sides multiply square matrices of f32 with two threads; the best of several runs counts. They take turns, three times, so that a slow
minute of the machine meets both; the best turn of each counts, and all are printed.
"""

import argparse
import os
import re
import subprocess
import sys
import time

THREADS = "2"
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = THREADS

import numpy  # noqa: E402  (after the number of threads)

SIZES = (1024, 2048, 4096)


def numpy_gflops(size):
    random = numpy.random.default_rng(size)
    a, b = (random.random((size, size), dtype=numpy.float32) * 2 - 1 for _ in range(2))
    a @ b
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < 2:
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def raftwerk_gflops(program):
    """GFLOP/s by size, from the lines "matmul, cpu, 2 threads, 2048  ..  97.3 GFLOP/s"."""
    # Without a Vulkan driver the GPU twin is skipped: only the processor is asked for here.
    nothing = {**os.environ, "VK_DRIVER_FILES": "/nonexistent", "VK_ICD_FILENAMES": "/nonexistent"}
    output = subprocess.run([program, "matmul"], env=nothing, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^matmul, cpu, 2 threads, (\d+)\s.*?([\d.]+) GFLOP/s$", output, re.MULTILINE)
    if not found:
        sys.exit(f"no line about matmul in the output of {program}:\n{output}")
    return {int(size): float(gflops) for size, gflops in found}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", required=True, help="the program that `cargo bench -p raftwerk-kernels --no-run` built")
    parser.add_argument("--turns", type=int, default=3)
    program = parser.parse_args()
    turns = []
    for _ in range(program.turns):
        ours = raftwerk_gflops(program.kernels)
        turns.append({size: (ours[size], numpy_gflops(size)) for size in SIZES})
    blas = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    print(f"numpy {numpy.__version__}, {blas['name']} {blas['version']}, {THREADS} threads; GFLOP/s of f32")
    print(f"{'size':>6} {'raftwerk':>10} {'numpy':>10} {'ratio':>7}   turns (raftwerk / numpy)")
    for size in SIZES:
        ours, theirs = max(turn[size][0] for turn in turns), max(turn[size][1] for turn in turns)
        each = "  ".join(f"{a:.1f} / {b:.1f}" for a, b in (turn[size] for turn in turns))
        print(f"{size:>6} {ours:>10.1f} {theirs:>10.1f} {ours / theirs:>7.2f}   {each}")


if __name__ == "__main__":
    main()
