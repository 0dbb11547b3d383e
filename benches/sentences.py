#!/usr/bin/env python3
"""Writes the sentences that every side of a benchmark embeds: the same lines on every machine.

Short reports as a fleet sends them, about eleven tokens each with the two special ones. They are
made from word lists by a seeded generator, so nothing large has to be committed.

  python3 benches/sentences.py --count 10000 --output sentences.txt
"""

import argparse
import random
import sys

WHO = """the robot|a vehicle|the shuttle|truck seven|the forklift|a drone|the tractor|our delivery van
the arm|the tug|unit four|the night bus|a worker|the operator|one cyclist|a child|the crane
the sweeper|an ambulance|the second car|a passenger|the loader|the ferry|an inspector""".replace("\n", "|")
DID = """stopped|slowed down|turned left|waited|lost grip|reversed|restarted|drifted|reported a fault
crossed the lane|missed the dock|changed course|opened the hatch|dropped its load|called for help
saw an obstacle|lost the signal|braked hard|found a new path|blocked the exit|ran out of power
lowered the fork|left the route|passed the gate""".replace("\n", "|")
WHERE = """at the gate|near the bridge|in aisle nine|behind the market|on the ramp|at the crossing
in the tunnel|next to the charger|by the harbour|in the yard|on wet leaves|under the crane
at platform two|beside the fence|in the cold store|on the hill""".replace("\n", "|")
WHEN = """this morning|at noon|after the update|during rain|twice today|before sunrise|in heavy fog
while charging|without warning|again|for ten seconds|late at night|since yesterday""".replace("\n", "|")
WHY = """because of ice|with low battery|due to a worn belt|after a short circuit|to let others pass
because the map was old|with a hot motor|behind a parked van|to avoid a dog""".replace("\n", "|")


def sentences(count: int, seed: int = 11) -> list[str]:
  """`count` sentences; the first ones are the same whatever the count."""
  generator = random.Random(seed)
  who, did, where, when, why = (part.split("|") for part in (WHO, DID, WHERE, WHEN, WHY))
  lines = []
  for _ in range(count):
    parts = [generator.choice(who), generator.choice(did)]
    roll = generator.random()
    if roll < 0.85:
      parts.append(generator.choice(where))
    if 0.30 < roll < 0.70 or roll > 0.95:
      parts.append(generator.choice(when))
    if roll > 0.80:
      parts.append(generator.choice(why))
    lines.append(" ".join(parts))
  return lines


def main() -> None:
  parser = argparse.ArgumentParser(description="write the sentences of the benchmarks")
  parser.add_argument("--count", type=int, default=10_000)
  parser.add_argument("--output", default="-", help="file to write, - for standard output")
  arguments = parser.parse_args()
  text = "".join(line + "\n" for line in sentences(arguments.count))
  if arguments.output == "-":
    sys.stdout.write(text)
  else:
    with open(arguments.output, "w", encoding="utf-8") as file:
      file.write(text)


if __name__ == "__main__":
  main()
