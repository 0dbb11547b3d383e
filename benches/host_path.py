#!/usr/bin/env python3
"""What the host's way costs a text, for one build or several in turn.

Runs the example `host_path` of each build in turn, several rounds, and prints for each the median
of texts per second and of the processor time that each thread spends on a text, and their ratios to
the first build. The worker is the real worker process over an engine that computes nothing.
Processor time is what to go by: other work on the machine changes texts per second at once. Needs
only the standard library.

  cargo build --release -p forebay-cli --bin forebay-fake-worker --example host_path
  python3 benches/host_path.py now=target/release before=FOLDER --rounds 5

A build is a name and the folder with its `forebay-fake-worker` and `host_path` (or
`examples/host_path`). What stands behind `--` goes to the example, such as `-- --spin-us 1000`. The
time of texts alone (p50) says little on a machine that is busy or has few processors.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path


# The first passes in bulk of a run, which are not counted: the allocator is still taking memory
# from the kernel, and what that costs hides the rest.
SETTLING = 3
# It keeps what it has taken.
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(8 << 30), "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
             "MALLOC_TOP_PAD_": str(256 << 20)}


def run(folder: Path, options: list[str]) -> dict[str, list[float]]:
  """Every figure of one run, by name."""
  example = next((path for path in (folder / "host_path", folder / "examples/host_path")
                  if path.exists()), None)
  if example is None:
    sys.exit(f"{folder} has no host_path; build it with --example host_path")
  command = [str(example), "--worker", str(folder / "forebay-fake-worker"),
             "--passes", str(SETTLING + 5), *options]
  done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | ALLOCATOR)
  if done.returncode != 0:
    sys.exit(f"{' '.join(command)} failed")
  lines = [json.loads(line) for line in done.stdout.splitlines()][SETTLING:]
  figures: dict[str, list[float]] = {}
  for line in lines:
    alone = "p50_us" in line
    threads = line.pop("single_thread_ns" if alone else "thread_ns")
    line["host, ns of processor"] = sum(threads.values())
    line.update({f"{name}, ns of processor": ns for name, ns in threads.items()})
    for name, value in line.items():
      figures.setdefault(("alone: " if alone else "bulk: ") + name, []).append(value)
  return figures


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("builds", nargs="+", metavar="NAME=FOLDER")
  parser.add_argument("--rounds", type=int, default=5)
  split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
  arguments, options = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1:]
  builds = dict(build.split("=", 1) for build in arguments.builds)
  taken: dict[str, dict[str, list[float]]] = {name: {} for name in builds}
  for _ in range(arguments.rounds):
    for name, folder in builds.items():
      for figure, values in run(Path(folder), options).items():
        taken[name].setdefault(figure, []).extend(values)
  first = next(iter(builds))
  print("| figure | " + " | ".join(builds) + " | ratios to " + first + " |")
  print("|---|" + "---|" * (len(builds) + 1))
  for figure in taken[first]:
    medians = [statistics.median(taken[name].get(figure, [0.0])) for name in builds]
    if max(medians) < 1:
      continue
    ratios = [f"{median / medians[0]:.2f}" for median in medians[1:] if medians[0] > 0]
    cells = [f"{median:,.0f}" for median in medians]
    print(f"| {figure} | " + " | ".join(cells) + " | " + ", ".join(ratios) + " |")


if __name__ == "__main__":
  main()
