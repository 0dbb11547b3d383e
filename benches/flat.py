#!/usr/bin/env python3
"""Cost per text and memory from 1,000 to 100,000 texts.

Runs `forebay embed` over files of growing length and prints, for each, texts per second and the
largest resident memory of the host process and of its worker, read from /proc while they run. Both
should stay flat: the program streams, and what it holds is bounded by its settings. Needs only the
standard library and the release build.

  cargo build --release -p forebay-cli && python3 benches/flat.py
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import sentences

ROOT = Path(__file__).resolve().parent.parent


def peak_kib(pid: int) -> int:
  """Largest resident memory of a process so far, in KiB; 0 if it is gone."""
  try:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
      if line.startswith("VmHWM:"):
        return int(line.split()[1])
  except OSError:
    pass
  return 0


def children(pid: int) -> list[int]:
  found = []
  for task in Path(f"/proc/{pid}/task").glob("*/children"):
    try:
      found += [int(child) for child in task.read_text().split()]
    except OSError:
      pass
  return found


def run(program: Path, model: Path, lines: Path, output: Path, precision: str) -> tuple:
  """Seconds, and the largest memory of the host and of its worker in KiB."""
  command = [program, "embed", "--model", model, "--precision", precision,
             "--input", lines, "--output", output]
  start = time.monotonic()
  process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
  host = worker = 0
  while process.poll() is None:
    host = max(host, peak_kib(process.pid))
    worker = max([worker] + [peak_kib(child) for child in children(process.pid)])
    time.sleep(0.05)
  if process.returncode != 0:
    sys.exit(f"forebay embed failed: {process.stderr.read()}")
  return time.monotonic() - start, host, worker


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--program", type=Path, default=ROOT / "target/release/forebay")
  parser.add_argument("--model", type=Path, default=ROOT / ".forebay/models/all-MiniLM-L6-v2")
  parser.add_argument("--precision", default="f32", choices=["f32", "int8"])
  parser.add_argument("--counts", default="1000,10000,100000", help="(default %(default)s)")
  arguments = parser.parse_args()
  print(f"{'texts':>8} {'seconds':>9} {'texts/s':>9} {'ms/text':>9} {'host MiB':>9} {'worker MiB':>11}")
  with tempfile.TemporaryDirectory() as folder:
    for count in map(int, arguments.counts.split(",")):
      lines = Path(folder) / f"{count}.txt"
      lines.write_text("".join(line + "\n" for line in sentences.sentences(count)))
      output = Path(folder) / "rows.npy"
      seconds, host, worker = run(
        arguments.program, arguments.model, lines, output, arguments.precision)
      print(f"{count:>8} {seconds:>9.2f} {count / seconds:>9.0f} {seconds / count * 1e3:>9.3f} "
            f"{host / 1024:>9.1f} {worker / 1024:>11.1f}", flush=True)


if __name__ == "__main__":
  main()
