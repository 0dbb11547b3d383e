#!/usr/bin/env python3
"""Times the ways to write a BERT encoder as an ONNX graph, one thread, processor time.

The CPU engine builds one graph (crates/forebay-onnx/src/encoder.rs); this script has the ones it
was chosen from. All run in turns, so that other work on the machine meets all of them; the least
processor time per text is printed, which such work disturbs least. docs/cpu-engine.md has results.

  python3 benches/graph_variants.py --model .forebay/models/all-MiniLM-L6-v2 [--turns 20]

Needs onnx, onnxruntime, numpy and safetensors: the environment of benches/cpu.py has them
(`.venv/bin/python`).
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

CONTRIB = "com.microsoft"
# Rows and the range of their lengths.
BATCHES = ((1, 11, 11), (8, 11, 11), (64, 11, 11), (16, 6, 18), (256, 6, 18), (16, 64, 64), (4, 256, 256))
VARIANTS = {
  # Rectangles of rows of equal length, one after another: no mask, no padding.
  "rectangle, fused: EmbedLayerNorm, Attention, SkipLayerNorm, BiasGelu":
    dict(embed="fused", attention="Attention", norm="skip", gelu="bias"),
  "rectangle, plain embedding and Add + LayerNorm; Attention, BiasGelu":
    dict(attention="Attention", gelu="bias"),
  "rectangle, the same with MultiHeadAttention": dict(attention="MultiHeadAttention", gelu="bias"),
  "rectangle, the same with MatMul and Softmax": dict(gelu="bias"),
  "rectangle, MatMul and Softmax, Gemm + Gelu": dict(),
  # Dense layers over packed tokens of mixed lengths, attention over gathered blocks.
  "packed, F32 (the engine's)": dict(packed=True),
  "packed, INT8 per tensor (DynamicQuantizeMatMul)": dict(packed=True, dense="tensor"),
  "packed, INT8 in blocks of 128 (MatMulNBits)": dict(packed=True, dense="blocks"),
  "packed, INT8 per token (the engine's)": dict(packed=True, dense="token"),
}


class Builder:
  """Nodes that name their own output, and constants."""

  def __init__(self) -> None:
    self.nodes, self.constants, self.count = [], {}, 0

  def constant(self, name: str, value: np.ndarray) -> str:
    self.constants.setdefault(name, numpy_helper.from_array(np.asarray(value, order="C"), name))
    return name

  def node(self, operator: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes):
    self.count += 1
    names = [f"{operator}_{self.count}_{index}" for index in range(outputs)]
    self.nodes.append(helper.make_node(operator, inputs, names, domain=domain, **attributes))
    return names[0] if outputs == 1 else names

  def contrib(self, operator: str, *inputs: str, outputs: int = 1, **attributes):
    return self.node(operator, *inputs, outputs=outputs, domain=CONTRIB, **attributes)


class Encoder:
  """One variant of the graph."""

  def __init__(self, config, weights, packed=False, embed="plain", attention="plain", norm="plain",
               gelu="gemm", dense="f32") -> None:
    self.hidden, self.heads = config["hidden_size"], config["num_attention_heads"]
    self.epsilon, self.layers = config.get("layer_norm_eps", 1e-12), config["num_hidden_layers"]
    self.weights, self.packed, self.dense_kind = weights, packed, dense
    self.embed_kind, self.attention_kind, self.norm_kind, self.gelu_kind = embed, attention, norm, gelu
    self.graph = Builder()

  def model(self) -> bytes:
    graph, heads = self.graph, self.heads
    integers, floats = TensorProto.INT32, TensorProto.FLOAT
    if self.packed:
      inputs = [("ids", integers, ["t"]), ("positions", integers, ["t"]),
                ("slots", integers, ["b", 1, "w"]), ("returns", integers, ["t", heads]),
                ("mask", floats, ["b", 1, 1, "w"])]
      offset = lambda part: (part * heads + np.arange(heads, dtype=np.int32)).reshape(1, -1, 1)
      self.picks = [graph.node("Add", "slots", graph.constant(f"part{part}", offset(part)))
                    for part in range(3)]
    else:
      inputs = [("ids", integers, ["b", "s"])]
      flat = self.attention_kind == "plain" and self.norm_kind == "plain"
      self.shape = graph.node("Shape", "ids")
      tail = graph.constant("tail", np.array([heads, self.hidden // heads], np.int64))
      self.headed = graph.node("Concat", self.shape, tail, axis=0)
      self.flat = flat
    states = self.embed()
    for layer in range(self.layers):
      states = self.layer(f"encoder.layer.{layer}.", states)
    graph.nodes[-1].output[0] = "states"
    values = [helper.make_tensor_value_info(*value) for value in inputs]
    states = helper.make_tensor_value_info("states", floats, None)
    made = helper.make_graph(graph.nodes, "encoder", values, [states], list(graph.constants.values()))
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(CONTRIB, 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10).SerializeToString()

  def embed(self) -> str:
    graph, prefix = self.graph, "embeddings."
    tables = {name: self.weights[f"{prefix}{name}_embeddings.weight"]
              for name in ("word", "position", "token_type")}
    word = graph.constant("word", tables["word"])
    position = graph.constant("position", tables["position"] + tables["token_type"][0])
    if self.embed_kind == "fused":
      gamma, beta = self.gamma_beta(f"{prefix}LayerNorm")
      return graph.contrib("EmbedLayerNormalization", "ids", "", word, position, "", gamma, beta,
                           outputs=2, epsilon=self.epsilon)[0]
    words = graph.node("Gather", word, "ids")
    if self.packed:
      positions = graph.node("Gather", position, "positions")
    else:
      zero, end = graph.constant("zero", np.array([0], np.int64)), graph.node("Shape", "ids", start=1)
      positions = graph.node("Slice", position, zero, end, zero)
    states = self.normalize(words, positions, f"{prefix}LayerNorm")
    return graph.node("Reshape", states, self.joined()) if not self.packed and self.flat else states

  def layer(self, prefix: str, states: str) -> str:
    graph, attention = self.graph, f"{prefix}attention."
    parts = [f"{attention}self.{name}" for name in ("query", "key", "value")]
    context = self.attend(parts, states)
    output = self.dense([f"{attention}output.dense"], context)
    states = self.normalize(output, states, f"{attention}output.LayerNorm")
    name = f"{prefix}intermediate.dense"
    if self.gelu_kind == "bias":
      weight, bias = self.weight_bias([name])
      inner = graph.node("MatMul", states, graph.constant(f"{name}.w", weight.T))
      inner = graph.contrib("BiasGelu", inner, graph.constant(f"{name}.b", bias))
    else:
      inner = graph.node("Gelu", self.dense([name], states))
    output = self.dense([f"{prefix}output.dense"], inner)
    return self.normalize(output, states, f"{prefix}output.LayerNorm")

  def attend(self, parts: list[str], states: str) -> str:
    graph, width = self.graph, self.hidden // self.heads
    if self.attention_kind == "Attention":
      weight, bias = self.weight_bias(parts)
      weight, bias = graph.constant(f"{parts[0]}.w", weight.T), graph.constant(f"{parts[0]}.b", bias)
      return graph.contrib("Attention", states, weight, bias, num_heads=self.heads)
    projected = self.dense(parts, states)
    pieces = graph.constant("pieces", np.array([-1, width], np.int64))
    if self.packed:
      rows = graph.node("Reshape", projected, pieces)
      query, key, value = [graph.node("Gather", rows, pick) for pick in self.picks]
    else:
      split = graph.node("Split", projected, outputs=3, axis=-1, num_outputs=3)
      if self.attention_kind == "MultiHeadAttention":
        return graph.contrib("MultiHeadAttention", *split, num_heads=self.heads)
      headed = [graph.node("Reshape", part, self.headed) for part in split]
      query, key, value = [graph.node("Transpose", part, perm=[0, 2, 1, 3]) for part in headed]
    scores = graph.contrib("FusedMatMul", query, key, alpha=float(width**-0.5), transB=1)
    if self.packed:
      scores = graph.node("Add", scores, "mask")
    context = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)
    if self.packed:
      context = graph.node("Gather", graph.node("Reshape", context, pieces), "returns")
    else:
      context = graph.node("Transpose", context, perm=[0, 2, 1, 3])
      if not self.flat:
        shape = graph.constant("hidden", np.array([0, 0, self.hidden], np.int64))
        return graph.node("Reshape", context, shape)
    return graph.node("Reshape", context, self.joined())

  def joined(self) -> str:
    return self.graph.constant("joined", np.array([-1, self.hidden], np.int64))

  def normalize(self, left: str, right: str, name: str) -> str:
    graph, (gamma, beta) = self.graph, self.gamma_beta(name)
    if self.norm_kind == "skip":
      return graph.contrib("SkipLayerNormalization", left, right, gamma, beta, epsilon=self.epsilon)
    total = graph.node("Add", left, right)
    return graph.node("LayerNormalization", total, gamma, beta, axis=-1, epsilon=self.epsilon)

  def gamma_beta(self, name: str) -> list[str]:
    parts = [f"{name}.weight", f"{name}.bias"]
    return [self.graph.constant(part, self.weights[part]) for part in parts]

  def weight_bias(self, parts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Weights `[outputs, inputs]` and biases of the layers side by side."""
    return tuple(np.concatenate([self.weights[f"{part}.{kind}"] for part in parts])
                 for kind in ("weight", "bias"))

  def dense(self, parts: list[str], value: str) -> str:
    graph, name = self.graph, parts[0]
    weight, bias = self.weight_bias(parts)
    biases = graph.constant(f"{name}.b", bias)
    if self.dense_kind == "f32":
      if self.packed or self.flat:
        return graph.node("Gemm", value, graph.constant(f"{name}.w", weight), biases, transB=1)
      product = graph.node("MatMul", value, graph.constant(f"{name}.w", weight.T))
      return graph.node("Add", product, biases)
    outputs, inputs = weight.shape
    block = 128 if self.dense_kind == "blocks" else inputs
    blocks = weight.reshape(outputs, inputs // block, block)
    scale = np.abs(blocks).max(2) / 127
    whole = np.round(blocks / scale[:, :, None])
    scales = graph.constant(f"{name}.s", scale if self.dense_kind == "blocks" else scale[:, 0])
    if self.dense_kind == "blocks":
      whole = graph.constant(f"{name}.q", (whole + 128).astype(np.uint8))
      return graph.contrib("MatMulNBits", value, whole, scales, "", "", biases, K=inputs, N=outputs,
                           bits=8, block_size=block, accuracy_level=4)
    columns = whole.reshape(outputs, inputs).T.astype(np.int8)
    values = graph.constant(f"{name}.q", columns)
    if self.dense_kind == "tensor":
      return graph.contrib("DynamicQuantizeMatMul", value, values, scales, "", biases)
    axis = graph.constant("axis", np.array([1], np.int64))
    greatest, least = graph.node("ReduceMax", value, axis), graph.node("ReduceMin", value, axis)
    step = graph.constant("step", np.float32(1 / 255))
    per_token = graph.node("Mul", graph.node("Sub", greatest, least), step)
    zeros = graph.node("Expand", graph.constant("zeros", np.zeros(1, np.uint8)), graph.node("Shape", "ids"))
    quantized = graph.node("QuantizeLinear", graph.node("Sub", value, least),
                           graph.node("Squeeze", per_token, axis), zeros, axis=0)
    one, zero = graph.constant("one", np.float32(1)), graph.constant("none", np.uint8(0))
    product = graph.contrib("MatMulIntegerToFloat", quantized, values, one, scales, zero)
    sums = (columns.astype(np.float32) * scale[:, 0]).sum(0, keepdims=True)
    offset = graph.node("Gemm", least, graph.constant(f"{name}.sums", sums), biases)
    return graph.node("Add", graph.node("Mul", product, per_token), offset)


def rectangles(rows: list[np.ndarray]) -> list[dict]:
  lengths = sorted({len(row) for row in rows})
  return [{"ids": np.stack([row for row in rows if len(row) == length])} for length in lengths]


def packs(rows: list[np.ndarray], heads: int, rows_max: int = 64, step: int = 8) -> list[dict]:
  groups = {}
  for row in sorted(rows, key=len):
    groups.setdefault(-(-len(row) // step) * step, []).append(row)
  feeds = []
  for width, group in groups.items():
    for at in range(0, len(group), rows_max):
      part = group[at:at + rows_max]
      starts = np.cumsum([0] + [len(row) for row in part])
      slots = np.zeros((len(part), 1, width), np.int32)
      mask = np.full((len(part), 1, 1, width), -1e30, np.float32)
      returns = []
      for index, row in enumerate(part):
        slots[index] = starts[index]
        slots[index, 0, :len(row)] = np.arange(starts[index], starts[index + 1])
        mask[index, ..., :len(row)] = 0
        head = (index * heads + np.arange(heads)) * width
        returns.append(np.arange(len(row))[:, None] + head)
      positions = np.concatenate([np.arange(len(row)) for row in part])
      feeds.append({"ids": np.concatenate(part), "positions": positions.astype(np.int32),
                    "slots": slots * 3 * heads, "returns": np.concatenate(returns).astype(np.int32),
                    "mask": mask})
  return feeds


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("--model", type=Path, required=True, help="a BERT model folder with F32 safetensors")
  parser.add_argument("--turns", type=int, default=20)
  arguments = parser.parse_args()
  config = json.loads((arguments.model / "config.json").read_text())
  weights = load_file(arguments.model / "model.safetensors")
  options = ort.SessionOptions()
  options.intra_op_num_threads = 1
  options.enable_mem_pattern = False
  options.log_severity_level = 3
  # The graphs run as written: higher levels would fuse the plain ones back together.
  options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
  sessions = {}
  for name, variant in VARIANTS.items():
    model = Encoder(config, weights, **variant).model()
    sessions[name] = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

  random = np.random.default_rng(1)
  print(f"ms of processor time per text, least of {arguments.turns} turns")
  for count, shortest, longest in BATCHES:
    rows = [random.integers(1000, 30000, random.integers(shortest, longest + 1)).astype(np.int32)
            for _ in range(count)]
    feeds = {True: packs(rows, config["num_attention_heads"]), False: rectangles(rows)}
    least, states = {}, {}
    for _ in range(arguments.turns):
      for name, session in sessions.items():
        packed = VARIANTS[name].get("packed", False)
        start = time.process_time()
        results = [session.run(None, feed)[0] for feed in feeds[packed]]
        least[name] = min(least.get(name, np.inf), time.process_time() - start)
        states[name] = np.concatenate([result.reshape(-1, config["hidden_size"]) for result in results])
    lengths = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
    print(f"{count} rows of {lengths} tokens")
    for name, seconds in least.items():
      line = f"  {seconds / count * 1e3:8.3f}  {name}"
      if len({len(row) for row in rows}) == 1:
        # Equal lengths keep their order everywhere, so that the states can be compared.
        reference = states["rectangle, MatMul and Softmax, Gemm + Gelu"]
        norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(states[name], axis=1)
        line += f"; token cosine {((reference * states[name]).sum(1) / norms).mean():.5f}"
      print(line, flush=True)


if __name__ == "__main__":
  main()
