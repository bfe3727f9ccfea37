#!/usr/bin/env python3
"""Whether cost is linear: Raftwerk's word count over 1, 4 and 16 times the same text, which needs the disk space of one (hard links).

    cargo build --release -p raftwerk
    python3 bench/rivals/word_count.py --make text
    python3 bench/rivals/linear.py --text text [--times 1,4,16] [--turns 3] [--threads 2] [--workers 1] [--dir DIR, on the file system of the text]

Every word stays the same, so every count must be so many times as large: outputs are compared row by row before a time is printed. For each size: wall seconds until
the output is synced, wall and processor seconds for a GiB, beside those of the smallest, and the most memory that Raftwerk's processes held together: anonymous
(`contest.py`), and of the agent and its executor with the input that they have mapped (`smaps`).
"""

import argparse
import itertools
import os
import pathlib
import statistics
import sys

from contest import Footprint, Raftwerk, options, workplace


class Own(Raftwerk):
    def job(self):
        return (
            f'[input]\nfiles = ["{self.home}/text-*"]\nsplit = "{self.args.split}"\n[map]\nkernel = "word_count"\n'
            f'[reduce]\nkernel = "sum_by_key"\npartitions = {self.args.partitions}\n[output]\npath = "{self.out}"\nformat = "csv"\n'
        )

    def links(self, times):
        for number in range(times):
            link = self.home / f"text-{number:02}"
            if not link.exists():
                os.link(self.source, link)


def lines(contender):
    for path in contender.outputs():
        with open(path, "rb") as file:
            yield from file


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    parser.add_argument("--text", required=True)
    parser.add_argument("--times", default="1,4,16", help="rising")
    parser.add_argument("--split", default="16MiB")
    parser.add_argument("--partitions", type=int, default=8)
    args = parser.parse_args()
    source = pathlib.Path(args.text).resolve()
    sizes, rows = [int(times) for times in args.times.split(",")], []
    with workplace(args, "linear") as home:
        contender = Own(home, args, source)
        contender.start()
        try:
            for times in sizes:
                contender.links(times)
                turns, held = [], []
                for _ in range(args.turns):
                    with Footprint(lambda: [daemon.pid for daemon in contender.daemons[1:]]) as footprint:
                        turns.append(contender.turn())
                    held.append(footprint.most << 10)
                    if times == sizes[0]:
                        first = list(lines(contender))
                        continue
                    for expected, found in itertools.zip_longest(first, lines(contender), fillvalue=b","):
                        (word, _, count), (other, _, more) = expected.rpartition(b","), found.rpartition(b",")
                        # The first row of a part names the columns.
                        if word != other or (count != more if not more.strip().isdigit() else int(count) * times != int(more) * sizes[0]):
                            sys.exit(f"{times} times the text: {found!r}, where the text alone has {expected!r}")
                gib = source.stat().st_size * times / 2**30
                wall, processor, anonymous = (statistics.median(column) for column in zip(*turns))
                rows.append((times, gib, wall, wall / gib, processor / gib, anonymous / 2**20, statistics.median(held) / 2**20))
        finally:
            contender.stop()
    print(f"{source.stat().st_size} bytes, {args.threads} threads, {args.workers} workers, medians of {args.turns}; every count is so many times the first")
    print(f"{'times':>6} {'GiB':>6} {'wall s':>8} {'s/GiB':>8} {'of first':>8} {'CPU s/GiB':>10} {'of first':>8} {'anon MiB':>9} {'held MiB':>9}")
    for times, gib, wall, per, processor, anonymous, pss in rows:
        _, _, _, per_first, processor_first, _, _ = rows[0]
        print(f"{times:>6} {gib:>6.2f} {wall:>8.2f} {per:>8.3f} {per / per_first:>8.3f} {processor:>10.3f} {processor / processor_first:>8.3f} {anonymous:>9.0f} {pss:>9.0f}")


if __name__ == "__main__":
    main()
