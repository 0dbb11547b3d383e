#!/usr/bin/env python3
"""Measures what HTTP leaves of the engine: the daemon under clients that each send one short sentence
at a time, against raw ONNX Runtime at its best batching in the same run, on the same cores.

  * 1, 16 and 64 clients that ask again at once, with OpenAI's dialect and base64;
  * p99 at 70 % of what 64 clients got;
  * three times that as a flood with a deadline: what is accepted keeps it, what is not is refused at
    once, as much is served as by 64 clients just before and after it, and memory does not grow;
  * INT8 against F32.

The generator (crates/forebay-server/examples/load.rs) has one thread and shares the cores with the
daemon; its share is reported. The sides take turns for some rounds; medians are compared.

A machine that others share is a tenth faster now and slower then: many short rounds say more than few
long ones.

  cargo xtask bench-http
  cargo xtask bench-http -- --rounds 5 --seconds 3
"""

import argparse
import json
import os
import platform
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benches" / "peers"
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "crates/forebay-cli/tests/conformance")]
from cpu import ensure_environment, run_json, say  # noqa: E402
from daemon import Daemon, add_places  # noqa: E402
from sentences import sentences  # noqa: E402

CLIENTS = (1, 16, 64)
DEADLINE_MS = 1_000
FLOOD = 3.0
FLOOD_CLIENTS = 1_024
# Accepted requests may wait for half of their deadline; a flood needs as many connections as it has
# requests under way.
SETTINGS = """[admission]
interactive_wait_ms_max = 500
[limits]
connections_max = 4096
connections_per_peer_max = 4096
"""

# name, figure, limit, and whether the figure must be at least or at most the limit
THRESHOLDS = (
  ("1 client: ms more than a raw run", "f32.1.over_raw_ms", 0.3, "at most"),
  ("16 clients / raw ONNX Runtime", "f32.16.of_raw", 0.75, "at least"),
  ("64 clients / raw ONNX Runtime", "f32.64.of_raw", 0.85, "at least"),
  ("70 % load: p99 / p50", "f32.70.p99_of_p50", 3.0, "at most"),
  ("INT8 / F32, 64 clients", "int8.64.of_f32", 1.7, "at least"),
  ("flood: served / 64 clients", "f32.flood.goodput", 0.95, "at least"),
  ("flood: refusals p99 ms", "f32.flood.refusal_p99_ms", 5.0, "at most"),
  ("flood: share beyond its deadline", "f32.flood.beyond_deadline", 0.001, "at most"),
  ("flood: failed or broken", "f32.flood.failed", 0.0, "at most"),
  ("flood: memory, MiB more", "f32.flood.resident_rise_mib", 16.0, "at most"),
)


class Bench:
  """The sides; each call is one timed run."""

  def __init__(self, arguments: argparse.Namespace, python: Path | None, lines: Path) -> None:
    self.arguments, self.python, self.lines = arguments, python, lines
    self.choice: list = []

  def raw(self) -> dict:
    result = run_json("raw ONNX Runtime", [
      self.python, PEERS / "raw_onnxruntime.py", "--model", self.arguments.model, "--input",
      self.lines, "--cache", ROOT / ".forebay" / "peers", "--single-runs", 500,
      *self.choice])
    self.choice = [part for key, value in result["choice"].items() for part in (f"--{key}", value)]
    return {"raw.texts_per_s": result["bulk"]["model_only_texts_per_s"],
            "raw.with_tokenizer_texts_per_s": result["bulk"]["with_tokenizer_texts_per_s"],
            "raw.single_p50_ms": result["single"]["p50_ms"]}

  def load(self, daemon: Daemon, what: str, **options) -> dict:
    command = [self.arguments.generator, "--to", daemon.address.removeprefix("http://"), "--input",
               self.lines, "--seconds", self.arguments.seconds, "--warm", self.arguments.warm]
    for name, value in options.items():
      command += [f"--{name.replace('_', '-')}", value]
    return run_json(what, command)

  def daemon(self, precision: str) -> Daemon:
    place = (self.arguments.program, self.arguments.model, self.arguments.onnxruntime)
    return Daemon(*place, SETTINGS, precision=precision)

  def own(self, precision: str) -> dict:
    figures = {}
    with self.daemon(precision) as daemon:
      for clients in CLIENTS:
        figures |= self.closed(daemon, precision, clients)
      if precision == "f32":
        figures |= self.paced(daemon, figures["f32.64.per_s"])
        figures |= self.flood(daemon, figures["f32.64.per_s"])
    return figures

  def closed(self, daemon: Daemon, precision: str, clients: int) -> dict:
    result = self.load(daemon, f"{precision}, {clients} clients", clients=clients)
    self.check(result)
    return {f"{precision}.{clients}.per_s": result["served_per_s"],
            f"{precision}.{clients}.p50_ms": result["latency_ms"]["p50"],
            f"{precision}.{clients}.p99_ms": result["latency_ms"]["p99"],
            f"{precision}.{clients}.generator_cpu": result["generator_cpu_share"]}

  def paced(self, daemon: Daemon, capacity: float) -> dict:
    result = self.load(daemon, "70 % load", clients=256, rate=0.7 * capacity)
    self.check(result)
    return {"f32.70.p50_ms": result["latency_ms"]["p50"],
            "f32.70.p99_ms": result["latency_ms"]["p99"],
            "f32.70.p99_of_p50": result["latency_ms"]["p99"] / result["latency_ms"]["p50"],
            "f32.70.late_start_ms_max": result["late_start_ms_max"]}

  def flood(self, daemon: Daemon, capacity: float) -> dict:
    flood = {"clients": FLOOD_CLIENTS, "rate": FLOOD * capacity, "deadline_ms": DEADLINE_MS}
    self.load(daemon, "first flood", **flood)
    resident = daemon.resident_bytes()
    # What the daemon can do may have changed since.
    capacity = self.closed(daemon, "f32", 64)["f32.64.per_s"]
    result = self.load(daemon, "flood", **flood)
    rise = (daemon.resident_bytes() - resident) / (1 << 20)
    capacity = (capacity + self.closed(daemon, "f32", 64)["f32.64.per_s"]) / 2
    refusals = result["refusal_ms"] or {"p50": 0.0, "p99": 0.0, "max": 0.0}
    served = max(result["served"], 1)
    return {
      "f32.flood.goodput": result["served_per_s"] / capacity,
      "f32.flood.refused_per_s": result["refused"] / result["seconds"],
      "f32.flood.refusal_p50_ms": refusals["p50"], "f32.flood.refusal_p99_ms": refusals["p99"],
      "f32.flood.accepted_p99_ms": (result["latency_ms"] or {"p99": 0.0})["p99"],
      "f32.flood.beyond_deadline": result["beyond_deadline"] / served,
      "f32.flood.failed": sum(result["failed"].values()) + result["broken"],
      "f32.flood.generator_cpu": result["generator_cpu_share"],
      "f32.flood.resident_rise_mib": max(rise, 0.0)}

  def check(self, result: dict) -> None:
    if result["failed"] or result["broken"] or result["refused"] or not result["served"]:
      raise SystemExit(f"not every request was served: {result}")


def main() -> int:
  parser = argparse.ArgumentParser(description="measure the daemon over HTTP")
  add_places(parser)
  parser.add_argument("--generator", type=Path, default=ROOT / "target/release/examples/load")
  parser.add_argument("--python", type=Path,
                      help="Python that has the peers' packages, instead of .venv")
  parser.add_argument("--count", type=int, default=10_000, help="sentences (default %(default)s)")
  parser.add_argument("--rounds", type=int, default=3, help="rounds (default %(default)s)")
  parser.add_argument("--seconds", type=float, default=10.0, help="of each run (default %(default)s)")
  parser.add_argument("--warm", type=float, default=2.0, help="seconds before (default %(default)s)")
  parser.add_argument("--sides", default="raw,f32,int8", help="comma-separated: raw,f32,int8")
  parser.add_argument("--output", type=Path, default=ROOT / ".forebay/peers/http.json")
  parser.add_argument("--strict", action="store_true", help="exit 1 if a threshold is missed")
  arguments = parser.parse_args()
  wanted = arguments.sides.split(",")
  if not wanted or not set(wanted) <= {"raw", "f32", "int8"} or arguments.rounds < 1:
    parser.error("--sides takes raw, f32 and int8; --rounds at least 1")

  python = None
  if "raw" in wanted:
    python = arguments.python or ensure_environment(ROOT / ".venv")
  lines = ROOT / ".forebay" / "peers" / f"sentences-{arguments.count}.txt"
  lines.parent.mkdir(parents=True, exist_ok=True)
  lines.write_text("".join(line + "\n" for line in sentences(arguments.count)), encoding="utf-8")

  bench = Bench(arguments, python, lines)
  sides = {"raw": bench.raw, "f32": lambda: bench.own("f32"), "int8": lambda: bench.own("int8")}
  if "raw" in wanted:
    say("finding the best settings of raw ONNX Runtime")
    bench.raw()
  samples: dict[str, list[float]] = {}
  for number in range(arguments.rounds):
    say(f"round {number + 1} of {arguments.rounds}")
    turn = number % len(wanted)
    for side in wanted[turn:] + wanted[:turn]:
      for name, value in sides[side]().items():
        samples.setdefault(name, []).append(value)
  figures = {name: statistics.median(values) for name, values in samples.items()}
  for precision in ("f32", "int8"):
    for clients in CLIENTS:
      rate, raw = figures.get(f"{precision}.{clients}.per_s"), figures.get("raw.texts_per_s")
      if rate and raw:
        figures[f"{precision}.{clients}.of_raw"] = rate / raw
  if "f32.1.p50_ms" in figures and "raw.single_p50_ms" in figures:
    figures["f32.1.over_raw_ms"] = figures["f32.1.p50_ms"] - figures["raw.single_p50_ms"]
  if "int8.64.per_s" in figures and "f32.64.per_s" in figures:
    figures["int8.64.of_f32"] = figures["int8.64.per_s"] / figures["f32.64.per_s"]

  print(f"{arguments.count} sentences, median of {arguments.rounds} rounds of {arguments.seconds} s, "
        f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}\n")
  for name, value in figures.items():
    print(f"{name:34}{value:>12.3f}")
  print()
  met = True
  for name, figure, limit, sense in THRESHOLDS:
    if figure in figures:
      good = figures[figure] >= limit if sense == "at least" else figures[figure] <= limit
      met = met and good
      state = "met" if good else "MISSED"
      print(f"{name:36}{figures[figure]:>8.3f}   {sense} {limit}: {state}")
  arguments.output.write_text(json.dumps({"figures": figures, "samples": samples}, indent=2) + "\n")
  print(f"\nall figures: {arguments.output}")
  return 1 if arguments.strict and not met else 0


if __name__ == "__main__":
  sys.exit(main())
