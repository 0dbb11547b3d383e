#!/usr/bin/env python3
"""Checks embeddings against sentence-transformers in FP32, text by text.

For each precision `forebay embed` writes the embeddings of a file of texts; each row is compared
with the reference by cosine, and by length if the model does not normalise. The reference comes
from a file (`--reference`) or is computed: in FP32 with TF32 off, on the GPU if there is one. With
`--peer` the same texts are also computed by sentence-transformers in the 16-bit type, which shows
how much of a difference is the type's own. Nothing may fall back to the CPU unseen: the service is
started without a fallback unless the device is the CPU.

Texts are lines (`.txt`) or objects with a field `text` (`.jsonl`); default are the committed ones.
The exit code is 1 if a precision falls short of its threshold.

  python3 benches/accuracy_gpu.py --program P --model MiniLM --precisions f16=0.9999,bf16=0.999
  python3 benches/accuracy_gpu.py --program P --model bge-large --precisions f16=0.999 --peer
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "crates/forebay-cli/tests/fixtures"
TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "int8": "float32"}


def say(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


def read_texts(path: Path) -> list[str]:
  """The texts as `forebay embed` reads them: lines end at a line feed and nowhere else."""
  lines = path.read_text(encoding="utf-8").split("\n")
  if lines[-1] == "":
    lines.pop()
  if path.suffix == ".jsonl":
    return [json.loads(line)["text"] for line in lines]
  return [line.removesuffix("\r") for line in lines]


def encode(model: Path, texts: list[str], device: str, dtype: str, batch: int) -> numpy.ndarray:
  """Embeddings by sentence-transformers, as float32."""
  import torch
  from sentence_transformers import SentenceTransformer
  torch.backends.cuda.matmul.allow_tf32 = False
  torch.backends.cudnn.allow_tf32 = False
  torch.set_float32_matmul_precision("highest")
  loaded = SentenceTransformer(str(model), device=device, local_files_only=True,
                               model_kwargs={"dtype": getattr(torch, dtype)})
  rows = loaded.encode(texts, batch_size=batch, show_progress_bar=False, convert_to_numpy=False,
                       convert_to_tensor=True)
  return rows.float().cpu().numpy()


def own(arguments: argparse.Namespace, precision: str) -> numpy.ndarray:
  """Embeddings by `forebay embed`."""
  variables = dict(os.environ)
  if arguments.device != "cpu":
    variables["FOREBAY_DEVICES__FALLBACK"] = "none"
  with tempfile.TemporaryDirectory() as folder:
    output = Path(folder) / "rows.npy"
    form = "jsonl" if arguments.texts.suffix == ".jsonl" else "lines"
    command = [arguments.program, "embed", "--model", arguments.model, "--device", arguments.device,
               "--precision", precision, "--input", arguments.texts, "--format", form,
               "--output", output]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          env=variables, timeout=arguments.timeout_s)
    if done.returncode != 0:
      line = " ".join(str(part) for part in command)
      raise SystemExit(f"`{line}` ended with {done.returncode}:\n{done.stderr[-4000:]}")
    say(f"  {done.stderr.strip().splitlines()[-1]}")
    return numpy.load(output)


def compare(rows: numpy.ndarray, reference: numpy.ndarray) -> dict:
  """Cosines and lengths of rows against the reference."""
  if rows.shape != reference.shape:
    raise SystemExit(f"rows are {rows.shape}, the reference is {reference.shape}")
  if not numpy.isfinite(rows).all():
    raise SystemExit(f"{int((~numpy.isfinite(rows)).any(axis=1).sum())} rows are not finite")
  a, b = rows.astype(numpy.float64), reference.astype(numpy.float64)
  lengths = numpy.linalg.norm(a, axis=1), numpy.linalg.norm(b, axis=1)
  cosines = (a * b).sum(axis=1) / (lengths[0] * lengths[1])
  return {
    "texts": len(rows), "cosine_min": float(cosines.min()), "cosine_mean": float(cosines.mean()),
    "worst_text": int(cosines.argmin()), "difference_max": float(numpy.abs(a - b).max()),
    "length_error_max": float(numpy.abs(lengths[0] / lengths[1] - 1).max()),
  }


def between_texts(reference: numpy.ndarray) -> float:
  """Mean cosine between different texts; near 1 would make every comparison meaningless."""
  unit = reference / numpy.linalg.norm(reference, axis=1, keepdims=True)
  count = len(unit)
  return float(((unit @ unit.T).sum() - count) / max(1, count * (count - 1)))


def reference_device(wanted: str) -> str:
  import torch
  if wanted != "auto":
    return wanted
  return "cuda:0" if torch.cuda.is_available() else "cpu"


def thresholds(text: str) -> dict[str, float | None]:
  """`f16=0.9999,bf16` as precisions with their least cosine, if there is one."""
  pairs = [part.partition("=") for part in text.split(",")]
  if not all(name in TYPES for name, _, _ in pairs):
    raise argparse.ArgumentTypeError(f"precisions are {', '.join(TYPES)}")
  return {name: float(limit) if limit else None for name, _, limit in pairs}


def main() -> int:
  parser = argparse.ArgumentParser(description="compare embeddings with FP32 ones")
  parser.add_argument("--program", type=Path, default=ROOT / "target/release/forebay")
  parser.add_argument("--model", type=Path, required=True, help="model folder")
  parser.add_argument("--device", default="cuda:0", help="(default %(default)s)")
  parser.add_argument("--precisions", type=thresholds, default="f16=0.9999,bf16=0.999",
                      help="precisions with their least cosine (default %(default)s)")
  parser.add_argument("--texts", type=Path, default=FIXTURES / "reference_texts.jsonl")
  parser.add_argument("--reference", type=Path, help=".npy with the FP32 rows of the texts")
  parser.add_argument("--reference-device", default="auto", help="(default %(default)s)")
  parser.add_argument("--reference-batch", type=int, default=16, help="(default %(default)s)")
  parser.add_argument("--peer", action="store_true",
                      help="also compare sentence-transformers in the 16-bit type")
  parser.add_argument("--timeout-s", type=float, default=200.0, help="for each run of the program")
  parser.add_argument("--output", type=Path, help="JSON file with all figures")
  arguments = parser.parse_args()

  started = time.monotonic()
  device = None
  if arguments.reference:
    reference = numpy.load(arguments.reference)
  else:
    device = reference_device(arguments.reference_device)
    texts = read_texts(arguments.texts)
    reference = encode(arguments.model, texts, device, "float32", arguments.reference_batch)
  say(f"reference on {device or arguments.reference}: {time.monotonic() - started:.1f} s")

  rows = []
  for precision, limit in arguments.precisions.items():
    row = {"precision": precision, **compare(own(arguments, precision), reference), "limit": limit}
    row["met"] = limit is None or row["cosine_min"] >= limit
    if arguments.peer and TYPES[precision] != "float32":
      peer = encode(arguments.model, read_texts(arguments.texts),
                    device or reference_device(arguments.reference_device), TYPES[precision],
                    arguments.reference_batch)
      row["peer"] = compare(peer, reference)
    rows.append(row)

  report = {"model": arguments.model.name, "device": arguments.device,
            "reference": str(device or arguments.reference.name),
            "between_texts": between_texts(reference), "rows": rows}
  print(f"{report['model']} on {arguments.device}, {len(reference)} texts, mean cosine between "
        f"different texts {report['between_texts']:.3f}")
  for row in rows:
    verdict = "" if row["limit"] is None else (
      f"   at least {row['limit']}: {'met' if row['met'] else 'MISSED'}")
    peer = f"   (peer {row['peer']['cosine_min']:.6f})" if "peer" in row else ""
    print(f"  {row['precision']:5} min cosine {row['cosine_min']:.6f} (text {row['worst_text']}), "
          f"mean {row['cosine_mean']:.6f}{peer}{verdict}")
  if arguments.output:
    arguments.output.write_text(json.dumps(report, indent=2) + "\n")
  return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
  sys.exit(main())
