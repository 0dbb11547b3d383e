#!/usr/bin/env python3
"""Writes a model folder of a known geometry with seeded random weights.

Speed and numerical error depend on a model's geometry and on the range of its values, not on what
it has learned, so the larger models need no download. The folder has the layout of a published
sentence-transformers model; the tokenizer is copied from a folder that has one (its vocabulary
fixes the rows of the word table).

The weights are not those of a fresh model (deviation 0.02, under which all texts get nearly the
same embedding and errors stay invisible). Dense layers keep the variance of their input, attention
scores spread enough to prefer some tokens, and layer normalisations have scales and shifts of their
own, some of them several times larger than the rest, as trained encoders have. Each tensor has its
own generator, seeded by `--seed` and its name, so equal arguments give equal files.

  python3 benches/peers/random_model.py --geometry bge-large --tokenizer MODEL --output FOLDER
"""

import argparse
import json
import shutil
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                   "vocab.txt")
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
TOKENS_MAX = 512


@dataclass(frozen=True)
class Geometry:
  """Sizes of an encoder, and how its tokens become one embedding."""

  hidden: int
  layers: int
  heads: int
  intermediate: int
  pooling: str


GEOMETRIES = {
  "minilm": Geometry(384, 6, 12, 1536, "mean"),
  "e5-small": Geometry(384, 12, 12, 1536, "mean"),
  "bge-small": Geometry(384, 12, 12, 1536, "cls"),
  "bert-base": Geometry(768, 12, 12, 3072, "mean"),
  "bge-base": Geometry(768, 12, 12, 3072, "cls"),
  "bge-large": Geometry(1024, 24, 16, 4096, "cls"),
}

# Gain of a dense layer: deviation of its outputs for inputs of deviation 1.
GAINS = {"query": 1.25, "key": 1.25, "value": 1.0, "attention.output": 1.0, "intermediate": 1.0,
         "output": 1.0}
BIAS, SHIFT, SCALE_SPREAD = 0.05, 0.05, 0.15
# Every so many values of a normalisation one is larger: trained encoders have such channels.
LARGE_EVERY, LARGE = 96, 3.0


class Tensors:
  """Random tensors by name, each from its own generator."""

  def __init__(self, seed: int, dtype: torch.dtype) -> None:
    self.seed, self.dtype = seed, dtype
    self.made: dict[str, torch.Tensor] = {}

  def add(self, name: str, shape: tuple, deviation: float, mean: float = 0.0) -> numpy.ndarray:
    generator = numpy.random.default_rng([self.seed, zlib.crc32(name.encode())])
    values = generator.standard_normal(shape, dtype=numpy.float32)
    values *= deviation
    values += mean
    self.keep(name, values)
    return values

  def keep(self, name: str, values: numpy.ndarray) -> None:
    self.made[name] = torch.from_numpy(values).to(self.dtype)

  def linear(self, name: str, out: int, inputs: int, gain: float, centred: bool = False) -> None:
    matrix = self.add(f"{name}.weight", (out, inputs), gain / inputs**0.5)
    if centred:
      matrix -= matrix.mean(axis=1, keepdims=True)
      self.keep(f"{name}.weight", matrix)
    self.add(f"{name}.bias", (out,), BIAS)

  def norm(self, name: str, width: int) -> None:
    scale = self.add(f"{name}.weight", (width,), SCALE_SPREAD, 1.0)
    # Other values in every normalisation: the same ones would be enlarged again in each layer,
    # until nothing else counts.
    start = zlib.crc32(name.encode()) % LARGE_EVERY
    scale[start::LARGE_EVERY] *= LARGE
    self.keep(f"{name}.weight", scale)
    self.add(f"{name}.bias", (width,), SHIFT)


def weights(geometry: Geometry, vocab: int, seed: int, dtype: torch.dtype) -> dict:
  tensors = Tensors(seed, dtype)
  hidden, inner = geometry.hidden, geometry.intermediate
  for table, rows, deviation in (("word", vocab, 1.0), ("position", TOKENS_MAX, 0.3),
                                 ("token_type", 2, 0.1)):
    tensors.add(f"embeddings.{table}_embeddings.weight", (rows, hidden), deviation)
  tensors.norm("embeddings.LayerNorm", hidden)
  for layer in range(geometry.layers):
    at = f"encoder.layer.{layer}"
    for part in ("query", "key", "value"):
      tensors.linear(f"{at}.attention.self.{part}", hidden, hidden, GAINS[part])
    tensors.linear(f"{at}.attention.output.dense", hidden, hidden, GAINS["attention.output"])
    tensors.norm(f"{at}.attention.output.LayerNorm", hidden)
    tensors.linear(f"{at}.intermediate.dense", inner, hidden, GAINS["intermediate"])
    # GELU's outputs have a mean above 0: uncentred, they would push every token the same way.
    tensors.linear(f"{at}.output.dense", hidden, inner, GAINS["output"], centred=True)
    tensors.norm(f"{at}.output.LayerNorm", hidden)
  return tensors.made


def write_json(path: Path, value: object) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write(folder: Path, geometry: Geometry, tokenizer: Path, seed: int, dtype: str,
          normalize: bool = True) -> None:
  """Writes the folder; `model.safetensors` comes last, so a folder that has it is whole."""
  original = json.loads((tokenizer / "config.json").read_text(encoding="utf-8"))
  vocab, pad = original["vocab_size"], original.get("pad_token_id", 0)
  folder.mkdir(parents=True, exist_ok=True)
  for name in TOKENIZER_FILES:
    if (tokenizer / name).is_file():
      shutil.copyfile(tokenizer / name, folder / name)
  write_json(folder / "config.json", {
    "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu",
    "hidden_size": geometry.hidden, "num_hidden_layers": geometry.layers,
    "num_attention_heads": geometry.heads, "intermediate_size": geometry.intermediate,
    "max_position_embeddings": TOKENS_MAX, "type_vocab_size": 2, "vocab_size": vocab,
    "layer_norm_eps": 1e-12, "pad_token_id": pad, "position_embedding_type": "absolute",
    "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    "torch_dtype": str(DTYPES[dtype]).removeprefix("torch."),
  })
  modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
  modules += [("2_Normalize", "Normalize")] if normalize else []
  write_json(folder / "modules.json", [
    {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for index, (path, kind) in enumerate(modules)
  ])
  write_json(folder / "sentence_bert_config.json",
             {"max_seq_length": TOKENS_MAX, "do_lower_case": False})
  write_json(folder / "1_Pooling" / "config.json", {
    "word_embedding_dimension": geometry.hidden,
    "pooling_mode_cls_token": geometry.pooling == "cls",
    "pooling_mode_mean_tokens": geometry.pooling == "mean",
    "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False,
  })
  if normalize:
    (folder / "2_Normalize").mkdir(exist_ok=True)
  partial = folder / "model.safetensors.partial"
  save_file(weights(geometry, vocab, seed, DTYPES[dtype]), str(partial), metadata={"format": "pt"})
  partial.rename(folder / "model.safetensors")


def main() -> None:
  parser = argparse.ArgumentParser(description="write a model folder with random weights")
  parser.add_argument("--geometry", choices=GEOMETRIES, required=True)
  parser.add_argument("--tokenizer", type=Path, required=True,
                      help="model folder whose tokenizer is copied, such as all-MiniLM-L6-v2")
  parser.add_argument("--output", type=Path, required=True, help="folder to write")
  parser.add_argument("--dtype", choices=DTYPES, default="f32", help="(default %(default)s)")
  parser.add_argument("--seed", type=int, default=7, help="(default %(default)s)")
  parser.add_argument("--no-normalize", action="store_true",
                      help="leave embeddings as long as pooling makes them")
  arguments = parser.parse_args()
  write(arguments.output, GEOMETRIES[arguments.geometry], arguments.tokenizer, arguments.seed,
        arguments.dtype, not arguments.no_normalize)
  size = (arguments.output / "model.safetensors").stat().st_size
  print(f"{arguments.output}: {arguments.geometry}, {arguments.dtype}, {size / 2**20:.0f} MiB",
        file=sys.stderr)


if __name__ == "__main__":
  main()
