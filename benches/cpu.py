#!/usr/bin/env python3
"""Compares the program with its peers on this machine's CPU, all in one run.

Everybody embeds the same 10,000 short sentences with the same model:

  * raw ONNX Runtime from Python, at the best batch size, thread layout and graph a sweep finds;
  * sentence-transformers, at its best batch size;
  * this project, F32 and INT8, through its whole pipeline (`forebay bench pipeline`).

The sweeps come first; then the sides take turns for some rounds, in another order each time, so
that a slow minute of the machine falls on all of them. Medians over the rounds are compared with
the thresholds below. Only Python's standard library is needed here: the peers run in a virtual
environment in `.venv`, made on first use (several GB, see benches/peers/requirements.txt).

  cargo xtask bench-cpu                      # sets up, builds and runs this
  cargo xtask bench-cpu -- --rounds 5        # arguments for this script go after --
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benches" / "peers"
sys.path.insert(0, str(ROOT / "benches"))
from sentences import sentences  # noqa: E402

# name, numerator, denominator, limit, and whether the ratio must be at least or at most the limit
THRESHOLDS = (
  ("bulk F32 / raw ONNX Runtime", "bulk.f32", "bulk.raw", 0.95, "at least"),
  ("bulk F32 / sentence-transformers", "bulk.f32", "bulk.st", 2.5, "at least"),
  ("bulk INT8 / bulk F32", "bulk.int8", "bulk.f32", 1.7, "at least"),
  ("one text p50 / raw session run", "single.f32", "single.raw", 1.15, "at most"),
)


def say(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


def ensure_environment(folder: Path) -> Path:
  """The Python of the virtual environment, made and filled if its requirements have changed."""
  python = folder / "bin" / "python"
  wanted = PEERS / "requirements.txt"
  digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
  marker = folder / "requirements.sha256"
  if python.is_file() and marker.is_file() and marker.read_text() == digest:
    return python
  say(f"making {folder} with {wanted.relative_to(ROOT)} (several GB on first use)")
  venv.create(folder, with_pip=True)
  subprocess.run([python, "-m", "pip", "install", "--disable-pip-version-check", "-r", wanted],
                 check=True, stdout=sys.stderr)
  marker.write_text(digest)
  return python


def run_json(what: str, command: list, variables: dict[str, str] | None = None) -> dict:
  """Runs a side and returns the JSON object it prints."""
  say(f"  {what}")
  done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                        env={**os.environ, **(variables or {})})
  if done.returncode != 0:
    line = " ".join(str(part) for part in command)
    raise SystemExit(f"`{line}` ended with {done.returncode}:\n{done.stderr[-4000:]}")
  return json.loads(done.stdout)


class Sides:
  """The sides of the comparison: each call is one timed run in a process of its own."""

  def __init__(self, arguments: argparse.Namespace, python: Path | None, lines: Path) -> None:
    self.arguments, self.python, self.lines = arguments, python, lines
    self.raw_choice: list = []
    self.st_choice: list = []

  def peer(self, what: str, script: str, extra: list) -> dict:
    return run_json(what, [self.python, PEERS / script, "--model", self.arguments.model,
                           "--input", self.lines, *extra])

  def raw(self) -> dict:
    cache = ["--cache", ROOT / ".forebay" / "peers"]
    return self.peer("raw ONNX Runtime", "raw_onnxruntime.py", [*cache, *self.raw_choice])

  def st(self) -> dict:
    return self.peer("sentence-transformers", "sentence_transformers_peer.py", self.st_choice)

  def own(self, precision: str) -> dict:
    return run_json(
      f"forebay {precision}",
      [self.arguments.program, "bench", "pipeline", "--json", "--precision", precision,
       "--model", self.arguments.model, "--input", self.lines],
      {"FOREBAY_ONNXRUNTIME": str(self.arguments.onnxruntime)},
    )

  def sweep(self) -> None:
    """Finds the best settings of the peers and keeps them for the rounds."""
    choice = self.raw()["choice"]
    say(f"    best: {choice}")
    self.raw_choice = [part for key, value in choice.items() for part in (f"--{key}", value)]
    choice = self.st()["choice"]
    say(f"    best: {choice}")
    self.st_choice = ["--batch", choice["batch"]]


def figures(side: str, result: dict) -> dict[str, float]:
  """The figures that are compared, by name."""
  bulk, single = result["bulk"], result["single"]["p50_ms"]
  if side == "raw":
    return {"bulk.raw": bulk["model_only_texts_per_s"], "single.raw": single,
            "bulk.raw_with_tokenizer": bulk["with_tokenizer_texts_per_s"]}
  return {f"bulk.{side}": bulk["texts_per_s"], f"single.{side}": single}


def table(medians: dict[str, float]) -> str:
  names = {
    "f32": "forebay F32, whole pipeline", "int8": "forebay INT8, whole pipeline",
    "raw": "raw ONNX Runtime, model only", "raw_with_tokenizer": "raw ONNX Runtime with tokenizer",
    "st": "sentence-transformers",
  }
  rows = [f"{'':34}{'texts/s':>10}{'one text p50 ms':>18}"]
  for key, name in names.items():
    rate, single = medians.get(f"bulk.{key}"), medians.get(f"single.{key}")
    if rate is not None:
      shown = f"{single:.3f}" if single is not None else "-"
      rows.append(f"{name:34}{rate:>10.0f}{shown:>18}")
  return "\n".join(rows)


def judge(medians: dict[str, float]) -> list[dict]:
  """Every threshold whose two figures are there, with its ratio and verdict."""
  verdicts = []
  for name, above, below, limit, sense in THRESHOLDS:
    if above in medians and below in medians:
      ratio = medians[above] / medians[below]
      met = ratio >= limit if sense == "at least" else ratio <= limit
      verdicts.append({"name": name, "ratio": ratio, "limit": limit, "sense": sense, "met": met})
  return verdicts


def main() -> int:
  parser = argparse.ArgumentParser(description="compare with the peers on the CPU")
  parser.add_argument("--program", type=Path, default=ROOT / "target/release/forebay")
  parser.add_argument("--model", type=Path, default=ROOT / ".forebay/models/all-MiniLM-L6-v2")
  parser.add_argument("--onnxruntime", type=Path,
                      default=ROOT / ".forebay/onnxruntime/libonnxruntime.so.1.31.1")
  parser.add_argument("--python", type=Path,
                      help="Python that has the peers' packages, instead of .venv")
  parser.add_argument("--count", type=int, default=10_000, help="sentences (default %(default)s)")
  parser.add_argument("--rounds", type=int, default=3, help="rounds (default %(default)s)")
  parser.add_argument("--sides", default="raw,f32,st,int8", help="comma-separated: raw,f32,st,int8")
  parser.add_argument("--output", type=Path, default=ROOT / ".forebay/peers/cpu.json")
  parser.add_argument("--strict", action="store_true", help="exit 1 if a threshold is missed")
  arguments = parser.parse_args()
  wanted = arguments.sides.split(",")
  if not wanted or not set(wanted) <= {"raw", "f32", "st", "int8"} or arguments.rounds < 1:
    parser.error("--sides takes raw, f32, st and int8; --rounds at least 1")

  has_peers = bool({"raw", "st"} & set(wanted))
  python = arguments.python or (ensure_environment(ROOT / ".venv") if has_peers else None)
  lines = ROOT / ".forebay" / "peers" / f"sentences-{arguments.count}.txt"
  lines.parent.mkdir(parents=True, exist_ok=True)
  lines.write_text("".join(line + "\n" for line in sentences(arguments.count)), encoding="utf-8")

  sides = Sides(arguments, python, lines)
  if has_peers:
    say("finding the peers' best settings")
    sides.sweep()
  runs = {"raw": sides.raw, "st": sides.st, "f32": lambda: sides.own("f32"),
          "int8": lambda: sides.own("int8")}
  results: dict[str, list] = {side: [] for side in wanted}
  for number in range(arguments.rounds):
    say(f"round {number + 1} of {arguments.rounds}")
    turn = number % len(wanted)
    for side in wanted[turn:] + wanted[:turn]:
      results[side].append(runs[side]())

  samples: dict[str, list[float]] = {}
  for side, rows in results.items():
    for row in rows:
      for name, value in figures(side, row).items():
        samples.setdefault(name, []).append(value)
  medians = {name: statistics.median(values) for name, values in samples.items()}
  verdicts = judge(medians)

  print(f"{arguments.count} sentences, median of {arguments.rounds} rounds, "
        f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}\n")
  print(table(medians))
  print()
  for row in verdicts:
    state = "met" if row["met"] else "MISSED"
    print(f"{row['name']:34}{row['ratio']:>8.3f}   {row['sense']} {row['limit']}: {state}")
  arguments.output.parent.mkdir(parents=True, exist_ok=True)
  report = {"sentences": arguments.count, "rounds": arguments.rounds, "medians": medians,
            "samples": samples, "verdicts": verdicts, "results": results}
  arguments.output.write_text(json.dumps(report, indent=2) + "\n")
  print(f"\nall figures: {arguments.output}")
  return 1 if arguments.strict and not all(row["met"] for row in verdicts) else 0


if __name__ == "__main__":
  sys.exit(main())
