#!/usr/bin/env python3
"""Measures what HTTP leaves of a GPU: the daemon on one, by the number of threads that serve its
connections, under clients that each send one short sentence at a time.

The generators (crates/forebay-server/examples/load.rs) have one thread each and share the cores with
the daemon. Every request asks for base64 by OpenAI's dialect.

  benches/http_gpu.py --program target/release/forebay --generator target/release/examples/load
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "crates/forebay-cli/tests/conformance")]
from daemon import Daemon, add_places  # noqa: E402
from sentences import sentences  # noqa: E402

# Begins in the group [server], where the daemon's settings end.
SETTINGS = """threads = {threads}
[cuda]
precision = '{precision}'
[limits]
connections_max = 8192
connections_per_peer_max = 8192
"""
# generators, and the clients of each
CROWDS = ((1, 1), (1, 16), (4, 16), (4, 64), (4, 256))


def crowd(arguments: argparse.Namespace, daemon: Daemon, lines: Path, generators: int,
          clients: int) -> dict:
  command = [arguments.generator, "--to", daemon.address.removeprefix("http://"), "--input", lines,
             "--seconds", str(arguments.seconds), "--warm", "1", "--clients", str(clients)]
  running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
             for _ in range(generators)]
  results = [json.loads(process.communicate()[0]) for process in running]
  for result in results:
    if result["failed"] or result["broken"] or result["refused"] or not result["served"]:
      raise SystemExit(f"not every request was served: {result}")
  return {"clients": generators * clients,
          "served_per_s": sum(result["served_per_s"] for result in results),
          "p50_ms": max(result["latency_ms"]["p50"] for result in results),
          "p99_ms": max(result["latency_ms"]["p99"] for result in results),
          "generator_cores": sum(result["generator_cpu_share"] for result in results)}


def main() -> int:
  parser = argparse.ArgumentParser(description="measure the daemon over HTTP on a GPU")
  add_places(parser)
  parser.add_argument("--generator", type=Path, default=ROOT / "target/release/examples/load")
  parser.add_argument("--rungs", default="cuda:0", help="devices (default %(default)s)")
  parser.add_argument("--precision", default="f16", help="of the GPUs (default %(default)s)")
  parser.add_argument("--threads", default="0,1,2,4,8", help="values of server.threads")
  parser.add_argument("--seconds", type=float, default=4.0, help="of each run (default %(default)s)")
  arguments = parser.parse_args()
  lines = ROOT / ".forebay" / "peers" / "sentences-10000.txt"
  lines.parent.mkdir(parents=True, exist_ok=True)
  lines.write_text("".join(line + "\n" for line in sentences(10_000)), encoding="utf-8")
  place = (arguments.program, arguments.model, arguments.onnxruntime)
  print(f"{len(os.sched_getaffinity(0))} cores")
  for threads in arguments.threads.split(","):
    settings = SETTINGS.format(threads=threads, precision=arguments.precision)
    with Daemon(*place, settings, rungs=arguments.rungs) as daemon:
      for generators, clients in CROWDS:
        result = crowd(arguments, daemon, lines, generators, clients)
        print(json.dumps({"threads": threads, **result}), flush=True)
  return 0


if __name__ == "__main__":
  sys.exit(main())
