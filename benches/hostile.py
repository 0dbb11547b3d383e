#!/usr/bin/env python3
"""Measures what a client that behaves loses beside each crowd of hostile ones: its p99 alone and with
them, and the ratio, which is to be at most 2.

The crowds run in a process of their own on the same cores, at rates that leave those to the daemon:
what is measured is what the daemon does about them, not what their own work costs.

  cargo xtask bench-hostile
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import socket
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "crates/forebay-cli/tests/conformance")]
from cpu import run_json, say  # noqa: E402
from daemon import Daemon, add_places  # noqa: E402
from sentences import sentences  # noqa: E402

RATIO_MAX = 2.0
# Crowds may fill every place; who behaves is answered for all that.
SETTINGS = """[limits]
connections_max = 12000
connections_per_peer_max = 11000
first_byte_ms = 600000
idle_ms = 600000
"""
HEAD = b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


def connect(address: tuple[str, int]) -> socket.socket:
  stream = socket.create_connection(address, timeout=10)
  stream.setblocking(False)
  return stream


def send(stream: socket.socket, data: bytes) -> bool:
  """Whether the other end still takes something, be it not now."""
  try:
    stream.send(data)
  except BlockingIOError:
    return True
  except OSError:
    return False
  return True


def crowd(address, first: bytes, then: bytes, count: int, every_s: float, ready) -> None:
  """Keeps `count` connections open, each of which sends `first`, and `then` every so often; who is
  cut off comes again."""
  streams: list[socket.socket | None] = [None] * count
  is_ready = False
  while True:
    started = time.monotonic()
    for number, stream in enumerate(streams):
      if stream is None or (then and not send(stream, then)):
        if stream is not None:
          stream.close()
        with contextlib.suppress(OSError):
          streams[number] = connect(address)
          send(streams[number], first)
    if not is_ready:
      ready.set()
      is_ready = True
    time.sleep(max(0.0, every_s - (time.monotonic() - started)))


def hits(address, data: bytes, per_s: float, ready) -> None:
  """Connects again and again, sends and leaves."""
  ready.set()
  while True:
    started = time.monotonic()
    with contextlib.suppress(OSError):
      stream = socket.create_connection(address, timeout=10)
      stream.sendall(data)
      stream.close()
    time.sleep(max(0.0, 1.0 / per_s - (time.monotonic() - started)))


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
  return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def resets(address, pairs_per_s: int, ready) -> None:
  """Opens streams of HTTP/2 and resets each at once."""
  head = bytes([0x83, 0x86, 0x04, 6]) + b"/embed" + bytes([0x01, 1]) + b"a"
  ready.set()
  while True:
    with contextlib.suppress(OSError):
      stream = socket.create_connection(address, timeout=10)
      stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
      for number in range(1, 1 << 20, 2):
        pair = frame(1, 4, number, head) + frame(3, 0, number, (8).to_bytes(4, "big"))
        stream.sendall(pair)
        time.sleep(1.0 / pairs_per_s)
    time.sleep(0.01)


GARBAGE = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n\x01\x02 garbage\r\n\r\n"
READS_NOTHING = b"GET /api-doc/openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n" * 20

CROWDS = {
  "idle, 10,000": (crowd, b"", b"", 10_000, 1.0),
  "half-open, 10,000": (crowd, HEAD, b"", 10_000, 1.0),
  "slow header, 500": (crowd, b"GET /livez HTTP/1.1\r\nhost: localhost\r\n", b"x", 500, 1.0),
  "slow body, 500": (crowd, HEAD + b"content-length: 50000\r\n\r\n{", b" ", 500, 1.0),
  "never reads, 50": (crowd, READS_NOTHING, READS_NOTHING, 50, 0.5),
  "large header, 50/s": (hits, b"GET /livez HTTP/1.1\r\nx: " + b"a" * 100_000 + b"\r\n\r\n", 50.0),
  "large body, 50/s": (hits, HEAD + b"content-length: 99999999\r\n\r\n" + b" " * 65_536, 50.0),
  "garbage, 200/s": (hits, GARBAGE, 200.0),
  "reset streams, 1,000/s": (resets, 1_000),
}


def main() -> int:
  parser = argparse.ArgumentParser(description="measure a good client beside hostile ones")
  add_places(parser)
  parser.add_argument("--generator", type=Path, default=ROOT / "target/release/examples/load")
  parser.add_argument("--seconds", type=float, default=10.0, help="of each run (default %(default)s)")
  parser.add_argument("--rounds", type=int, default=3, help="rounds (default %(default)s)")
  parser.add_argument("--clients", type=int, default=4, help="good clients (default %(default)s)")
  parser.add_argument("--rate", type=float, default=100.0,
                      help="requests per second of all of them (default %(default)s)")
  parser.add_argument("--output", type=Path, default=ROOT / ".forebay/peers/hostile.json")
  parser.add_argument("--strict", action="store_true", help="exit 1 if a ratio is above 2")
  arguments = parser.parse_args()
  _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
  if hard != resource.RLIM_INFINITY and hard < 10_500:
    raise SystemExit(f"10,500 descriptors are needed, {hard} are allowed; raise the hard limit")
  lines = ROOT / ".forebay" / "peers" / "sentences-1000.txt"
  lines.parent.mkdir(parents=True, exist_ok=True)
  lines.write_text("".join(line + "\n" for line in sentences(1_000)), encoding="utf-8")

  place = (arguments.program, arguments.model, arguments.onnxruntime)
  samples: dict[str, list[float]] = {}
  with Daemon(*place, SETTINGS) as daemon:
    target = daemon.address.removeprefix("http://")
    host, port = target.rsplit(":", 1)

    def measure(what: str) -> None:
      result = run_json(what, [
        arguments.generator, "--to", target, "--input", lines, "--clients", arguments.clients,
        "--rate", arguments.rate, "--seconds", arguments.seconds, "--warm", 1])
      if result["failed"] or result["broken"] or result["refused"] or not result["served"]:
        raise SystemExit(f"{what}: not every good request was served: {result}")
      samples.setdefault(what, []).append(result["latency_ms"]["p99"])

    for number in range(arguments.rounds):
      say(f"round {number + 1} of {arguments.rounds}")
      measure("alone")
      for name, (attack, *details) in CROWDS.items():
        ready = multiprocessing.Event()
        attacker = multiprocessing.Process(
          target=attack, args=((host, int(port)), *details, ready), daemon=True)
        attacker.start()
        if not ready.wait(120):
          raise SystemExit(f"{name}: the crowd did not come together")
        try:
          measure(name)
        finally:
          attacker.kill()
          attacker.join()
    resident_mib = daemon.resident_bytes() / (1 << 20)

  medians = {name: statistics.median(values) for name, values in samples.items()}
  alone = medians["alone"]
  print(f"{arguments.rate:g} requests per second, median of {arguments.rounds} rounds of "
        f"{arguments.seconds} s, {len(os.sched_getaffinity(0))} cores\n")
  print(f"{'crowd':26}{'p99 ms':>9}{'of alone':>10}")
  met = True
  for name, value in medians.items():
    good = value <= RATIO_MAX * alone
    met = met and good
    print(f"{name:26}{value:>9.2f}{value / alone:>10.2f}{'' if good else '  MISSED'}")
  print(f"\nmemory of the daemon in the end: {resident_mib:.0f} MiB")
  report = {"medians": medians, "samples": samples, "resident_mib": resident_mib}
  arguments.output.write_text(json.dumps(report, indent=2) + "\n")
  return 1 if arguments.strict and not met else 0


if __name__ == "__main__":
  sys.exit(main())
