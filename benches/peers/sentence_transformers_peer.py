#!/usr/bin/env python3
"""Peer: sentence-transformers as its users call it, `encode` in FP32 on the CPU.

Without `--batch` a sweep over a part of the sentences first finds the best batch size; the default
size of 32 is timed as well. `single` is `encode` of one short text. Prints one JSON object.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import sentence_transformers
import torch

BATCHES = (8, 16, 32, 64, 128)
BATCH_DEFAULT = 32


def rate(model, lines: list[str], batch: int) -> float:
  started = time.perf_counter()
  model.encode(lines, batch_size=batch, show_progress_bar=False)
  return len(lines) / (time.perf_counter() - started)


def main() -> None:
  parser = argparse.ArgumentParser(description="time sentence-transformers on the CPU")
  parser.add_argument("--model", type=Path, required=True)
  parser.add_argument("--input", type=Path, required=True, help="one sentence per line")
  parser.add_argument("--sweep-texts", type=int, default=2000)
  parser.add_argument("--single-runs", type=int, default=300)
  parser.add_argument("--batch", type=int)
  arguments = parser.parse_args()

  lines = arguments.input.read_text(encoding="utf-8").splitlines()
  model = sentence_transformers.SentenceTransformer(
    str(arguments.model), device="cpu", local_files_only=True
  )
  model.encode(lines[:256], show_progress_bar=False)
  batch, tried = arguments.batch, {}
  if batch is None:
    tried = {size: rate(model, lines[:arguments.sweep_texts], size) for size in BATCHES}
    batch = max(tried, key=tried.get)
  best = rate(model, lines, batch)
  default = best if batch == BATCH_DEFAULT else rate(model, lines, BATCH_DEFAULT)

  taken = []
  for index in range(20 + arguments.single_runs):
    started = time.perf_counter()
    model.encode(lines[0], show_progress_bar=False)
    if index >= 20:
      taken.append(1e3 * (time.perf_counter() - started))
  print(json.dumps({
    "peer": f"sentence-transformers {sentence_transformers.__version__}, torch {torch.__version__}",
    "choice": {"batch": batch},
    "bulk": {"texts_per_s": max(best, default), "default_batch_texts_per_s": default},
    "single": {"p50_ms": statistics.median(taken)},
    "sweep": tried,
  }))


if __name__ == "__main__":
  main()
