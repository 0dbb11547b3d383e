#!/usr/bin/env python3
"""Peer: ONNX Runtime driven directly from Python, at its best.

Sentences are sorted by length and cut into batches, so that padding stays small. Timed are the
session runs alone (`model_only`) and tokenizing plus runs (`with_tokenizer`). Without `--variant`
a sweep over a part of the sentences first finds the best graph variant, thread layout and batch
size. `single` is one short text alone: nothing but `session.run`, after a warm-up.

Prints one JSON object.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import threading
import time
from pathlib import Path

import numpy
import onnxruntime
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent))
import bert_onnx

BATCHES = (8, 16, 32, 64, 128)


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = threads
  options.inter_op_num_threads = 1
  options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
  return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def open_tokenizer(model: Path) -> Tokenizer:
  tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
  limit = json.loads((model / "sentence_bert_config.json").read_text())["max_seq_length"]
  tokenizer.enable_truncation(limit)
  tokenizer.no_padding()
  return tokenizer


def batches_of(encodings: list, size: int) -> list[dict[str, numpy.ndarray]]:
  """Padded inputs, longest first, so that a late long batch does not hold up the end."""
  order = sorted(encodings, key=lambda encoding: -len(encoding.ids))
  made = []
  for start in range(0, len(order), size):
    part = order[start:start + size]
    ids = numpy.zeros((len(part), len(part[0].ids)), dtype=numpy.int64)
    mask = numpy.zeros_like(ids)
    for row, encoding in enumerate(part):
      ids[row, :len(encoding.ids)] = encoding.ids
      mask[row, :len(encoding.ids)] = 1
    made.append({"input_ids": ids, "attention_mask": mask})
  return made


def run_all(sessions: list, batches: list) -> float:
  """Seconds to run every batch, with one thread of Python per session."""
  queue = iter(batches)
  guard = threading.Lock()

  def work(own) -> None:
    while True:
      with guard:
        batch = next(queue, None)
      if batch is None:
        return
      own.run(None, batch)

  threads = [threading.Thread(target=work, args=(own,)) for own in sessions]
  started = time.perf_counter()
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return time.perf_counter() - started


def open_layout(paths: dict, choice: dict) -> list:
  return [session(paths[choice["variant"]], choice["threads"]) for _ in range(choice["sessions"])]


def sweep(paths: dict, encodings: list, cores: int) -> tuple[dict, list]:
  """The fastest choice on a part of the sentences, and all that was tried."""
  layouts = sorted({(1, cores), (cores, 1)})
  tried = []
  for variant, (sessions, threads) in itertools.product(paths, layouts):
    choice = {"variant": variant, "sessions": sessions, "threads": threads}
    opened = open_layout(paths, choice)
    for size in BATCHES:
      batches = batches_of(encodings, size)
      run_all(opened, batches[:4])
      rate = len(encodings) / min(run_all(opened, batches) for _ in range(2))
      tried.append({**choice, "batch": size, "texts_per_s": round(rate, 1)})
  return max(tried, key=lambda row: row["texts_per_s"]), tried


def single(paths: dict, cores: int, encoding, runs: int) -> dict:
  """Latency of one text alone, for the best variant and number of threads."""
  best = None
  for variant, threads in itertools.product(paths, sorted({1, cores})):
    own = session(paths[variant], threads)
    feed = batches_of([encoding], 1)[0]
    for _ in range(max(20, runs // 10)):
      own.run(None, feed)
    taken = []
    for _ in range(runs):
      started = time.perf_counter()
      own.run(None, feed)
      taken.append(1e3 * (time.perf_counter() - started))
    taken.sort()
    row = {"variant": variant, "threads": threads, "tokens": len(encoding.ids),
           "p50_ms": statistics.median(taken), "p95_ms": taken[int(0.95 * len(taken))],
           "p99_ms": taken[int(0.99 * len(taken))]}
    if best is None or row["p50_ms"] < best["p50_ms"]:
      best = row
  return best


def main() -> None:
  parser = argparse.ArgumentParser(description="time ONNX Runtime driven from Python")
  parser.add_argument("--model", type=Path, required=True)
  parser.add_argument("--input", type=Path, required=True, help="one sentence per line")
  parser.add_argument("--cache", type=Path, required=True, help="folder for the ONNX graphs")
  parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
  parser.add_argument("--sweep-texts", type=int, default=2000)
  parser.add_argument("--single-runs", type=int, default=2000)
  parser.add_argument("--variant", choices=bert_onnx.VARIANTS)
  parser.add_argument("--sessions", type=int)
  parser.add_argument("--threads", type=int)
  parser.add_argument("--batch", type=int)
  arguments = parser.parse_args()

  lines = arguments.input.read_text(encoding="utf-8").splitlines()
  tokenizer = open_tokenizer(arguments.model)
  encodings = tokenizer.encode_batch(lines)
  paths = {variant: bert_onnx.cached(arguments.model, variant, arguments.cache)
           for variant in bert_onnx.VARIANTS}

  if arguments.variant:
    choice = {key: getattr(arguments, key) for key in ("variant", "sessions", "threads", "batch")}
    if None in choice.values():
      parser.error("--variant, --sessions, --threads and --batch go together")
    tried = []
  else:
    choice, tried = sweep(paths, encodings[:arguments.sweep_texts], arguments.cores)
  choice = {key: choice[key] for key in ("variant", "sessions", "threads", "batch")}

  opened = open_layout(paths, choice)
  batches = batches_of(encodings, choice["batch"])
  run_all(opened, batches[:8])
  model_only = run_all(opened, batches)
  started = time.perf_counter()
  run_all(opened, batches_of(tokenizer.encode_batch(lines), choice["batch"]))
  with_tokenizer = time.perf_counter() - started
  del opened

  print(json.dumps({
    "peer": f"onnxruntime {onnxruntime.__version__}",
    "choice": choice,
    "tokens_mean": statistics.fmean(len(encoding.ids) for encoding in encodings),
    "bulk": {
      "model_only_texts_per_s": len(lines) / model_only,
      "with_tokenizer_texts_per_s": len(lines) / with_tokenizer,
    },
    "single": single(paths, arguments.cores, encodings[0], arguments.single_runs),
    "sweep": tried,
  }))


if __name__ == "__main__":
  main()
