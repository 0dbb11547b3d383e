#!/usr/bin/env python3
"""What a timeline of `forebay bench pipeline --trace FILE.json` says in figures.

For the time in which the device works on large batches (a twentieth of them left out at either end):
how busy each stream of the GPU worker and each tokenizer is, and how much of the copies and of the
pooling runs while the device computes another batch. For a run on one GPU. Needs only the standard
library.

  python3 benches/timeline.py timeline.json
"""

import json
import sys
from collections import defaultdict

# Tokens from which a batch counts as large.
LARGE = 4000


def spans(path: str) -> dict[str, list[tuple[float, float, int]]]:
  """Begin, end and tokens of each span in milliseconds, by the name of its row."""
  with open(path, encoding="utf-8") as file:
    events = json.load(file)
  events = events["traceEvents"] if isinstance(events, dict) else events
  names = {(event["pid"], event["tid"]): event["args"]["name"] for event in events
           if event["ph"] == "M" and event["name"] == "thread_name"}
  if len({pid for (pid, _), name in names.items() if name == "stream infer"}) > 1:
    sys.exit("more than one GPU: their streams would be taken for one another's")
  rows = defaultdict(list)
  for event in events:
    if event["ph"] == "X":
      begin, tokens = event["ts"] / 1e3, event.get("args", {}).get("tokens", 0)
      rows[names[event["pid"], event["tid"]]].append((begin, begin + event["dur"] / 1e3, tokens))
  return {name: sorted(row) for name, row in rows.items()}


def covered(parts, begin: float, end: float) -> float:
  """How much of the time from `begin` to `end` the parts cover together."""
  total, until = 0.0, begin
  for first, last, *_ in sorted(parts):
    first, last = max(first, until), min(last, end)
    total += max(0.0, last - first)
    until = max(until, last)
  return total


def main() -> None:
  if len(sys.argv) != 2:
    sys.exit(__doc__)
  rows = spans(sys.argv[1])
  infer = rows.get("stream infer", [])
  large = [span for span in infer if span[2] >= LARGE]
  if len(large) < 20:
    sys.exit(f"{len(large)} batches of {LARGE} tokens or more: trace a run of longer texts")
  edge = len(large) // 20
  begin, end = large[edge][0], large[-edge - 1][1]
  print(f"{len(large)} batches, {end - begin:.1f} ms")
  for name in sorted(rows):
    if name.startswith(("stream", "tokenize")):
      print(f"{name:18} busy {100 * covered(rows[name], begin, end) / (end - begin):5.1f} %")
  for name in ("stream copy-in", "stream pool", "stream copy-out"):
    inside = [span for span in rows.get(name, []) if begin <= span[0] and span[1] <= end]
    time = sum(last - first for first, last, _ in inside)
    hidden = sum(covered(infer, first, last) for first, last, _ in inside)
    if time > 0:
      print(f"{name:18} {time:.2f} ms, {100 * hidden / time:5.1f} % of it while another batch computes")


if __name__ == "__main__":
  main()
