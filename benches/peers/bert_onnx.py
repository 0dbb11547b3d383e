"""Builds the ONNX graph of a BERT sentence encoder from its safetensors, pooling included.

Two variants of the same model: `standard` uses only operators of the ONNX standard, as an export
gives them, and leaves fusing to ONNX Runtime; `fused` uses ONNX Runtime's own operators for
attention, GELU and layer normalisation. Inputs are `input_ids` and `attention_mask`, int64
[texts, tokens]; the output `embedding` is float32 [texts, width], mean over the tokens, length one.
"""

import json
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

VARIANTS = ("standard", "fused")
CONTRIB = "com.microsoft"


class Graph:
  """Nodes and constants in the order in which they are added."""

  def __init__(self) -> None:
    self.nodes: list = []
    self.constants: dict[str, numpy.ndarray] = {}

  def constant(self, name: str, value: numpy.ndarray) -> str:
    self.constants[name] = value
    return name

  def add(self, kind: str, inputs: list[str], output: str, domain: str = "", **attributes) -> str:
    self.nodes.append(
      helper.make_node(kind, inputs, [output], name=output, domain=domain, **attributes)
    )
    return output

  def linear(self, value: str, weights: dict, name: str, bias: bool = True) -> str:
    matrix = numpy.ascontiguousarray(weights[f"{name}.weight"].T)
    product = self.add("MatMul", [value, self.constant(f"{name}.w", matrix)], f"{name}.product")
    if not bias:
      return product
    return self.add("Add", [product, self.bias(weights, name)], f"{name}.sum")

  def bias(self, weights: dict, name: str) -> str:
    return self.constant(f"{name}.b", weights[f"{name}.bias"])


def build(model: Path, variant: str) -> onnx.ModelProto:
  config = json.loads((model / "config.json").read_text())
  weights = load_file(model / "model.safetensors")
  heads, width = config["num_attention_heads"], config["hidden_size"]
  epsilon, fused = config["layer_norm_eps"], variant == "fused"
  graph = Graph()
  ints = lambda name, *values: graph.constant(name, numpy.array(values, dtype=numpy.int64))

  def norm(value: str, residual: str | None, name: str) -> str:
    scale = graph.constant(f"{name}.scale", weights[f"{name}.weight"])
    shift = graph.constant(f"{name}.shift", weights[f"{name}.bias"])
    if residual is not None and fused:
      return graph.add("SkipLayerNormalization", [value, residual, scale, shift], f"{name}.out",
                       domain=CONTRIB, epsilon=epsilon)
    if residual is not None:
      value = graph.add("Add", [value, residual], f"{name}.residual")
    return graph.add("LayerNormalization", [value, scale, shift], f"{name}.out",
                     axis=-1, epsilon=epsilon)

  # Every token has type 0, so its row is added to the positions once.
  positions = weights["embeddings.position_embeddings.weight"]
  positions = positions + weights["embeddings.token_type_embeddings.weight"][0]
  words = graph.constant("words", weights["embeddings.word_embeddings.weight"])
  shape = graph.add("Shape", ["input_ids"], "ids.shape")
  tokens = graph.add("Slice", [shape, ints("one", 1), ints("two", 2), ints("axis", 0)], "ids.tokens")
  table = graph.constant("positions", positions)
  places = graph.add("Slice", [table, ints("zero", 0), tokens, "axis"], "places")
  hidden = graph.add("Add", [graph.add("Gather", [words, "input_ids"], "word"), places], "embedded")
  hidden = norm(hidden, None, "embeddings.LayerNorm")

  mask = graph.add("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
  if fused:
    graph.add("Cast", ["attention_mask"], "mask.int", to=TensorProto.INT32)
  else:
    far = graph.constant("far", numpy.array(-1e9, dtype=numpy.float32))
    whole = graph.constant("whole", numpy.array(1.0, dtype=numpy.float32))
    wide = graph.add("Unsqueeze", [mask, ints("middle", 1, 2)], "mask.wide")
    absent = graph.add("Sub", [whole, wide], "mask.absent")
    graph.add("Mul", [absent, far], "mask.added")
    ints("split", 0, 0, heads, width // heads)
    ints("join", 0, 0, width)
    graph.constant("scale", numpy.array((width // heads) ** -0.5, dtype=numpy.float32))
    graph.constant("half", numpy.array(0.5, dtype=numpy.float32))
    graph.constant("root", numpy.array(2.0 ** 0.5, dtype=numpy.float32))

  for layer in range(config["num_hidden_layers"]):
    at = f"encoder.layer.{layer}"
    own = f"{at}.attention.self"
    if fused:
      kinds = ("query", "key", "value")
      matrix = numpy.concatenate([weights[f"{own}.{kind}.weight"].T for kind in kinds], axis=1)
      shift = numpy.concatenate([weights[f"{own}.{kind}.bias"] for kind in kinds])
      inputs = [hidden, graph.constant(f"{own}.w", numpy.ascontiguousarray(matrix)),
                graph.constant(f"{own}.b", shift), "mask.int"]
      context = graph.add("Attention", inputs, f"{own}.context", domain=CONTRIB, num_heads=heads)
    else:
      split = {}
      for kind, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        flat = graph.linear(hidden, weights, f"{own}.{kind}")
        shaped = graph.add("Reshape", [flat, "split"], f"{own}.{kind}.split")
        split[kind] = graph.add("Transpose", [shaped], f"{own}.{kind}.heads", perm=order)
      scores = graph.add("MatMul", [split["query"], split["key"]], f"{own}.scores")
      scores = graph.add("Mul", [scores, "scale"], f"{own}.scaled")
      scores = graph.add("Add", [scores, "mask.added"], f"{own}.masked")
      share = graph.add("Softmax", [scores], f"{own}.share", axis=-1)
      context = graph.add("MatMul", [share, split["value"]], f"{own}.mixed")
      context = graph.add("Transpose", [context], f"{own}.back", perm=[0, 2, 1, 3])
      context = graph.add("Reshape", [context, "join"], f"{own}.context")
    dense = graph.linear(context, weights, f"{at}.attention.output.dense")
    hidden = norm(dense, hidden, f"{at}.attention.output.LayerNorm")
    name = f"{at}.intermediate.dense"
    if fused:
      inner = graph.linear(hidden, weights, name, bias=False)
      inner = graph.add("BiasGelu", [inner, graph.bias(weights, name)], f"{name}.gelu",
                        domain=CONTRIB)
    else:
      inner = graph.linear(hidden, weights, name)
      error = graph.add("Erf", [graph.add("Div", [inner, "root"], f"{name}.d")], f"{name}.erf")
      error = graph.add("Add", [error, "whole"], f"{name}.shifted")
      inner = graph.add("Mul", [inner, error], f"{name}.twice")
      inner = graph.add("Mul", [inner, "half"], f"{name}.gelu")
    dense = graph.linear(inner, weights, f"{at}.output.dense")
    hidden = norm(dense, hidden, f"{at}.output.LayerNorm")

  last = graph.add("Unsqueeze", [mask, ints("last", 2)], "mask.column")
  kept = graph.add("Mul", [hidden, last], "kept")
  total = graph.add("ReduceSum", [kept, "one"], "total", keepdims=0)
  count = graph.add("ReduceSum", [last, "one"], "count", keepdims=0)
  mean = graph.add("Div", [total, count], "mean")
  graph.add("LpNormalization", [mean], "embedding", axis=1, p=2)

  int64, float32 = TensorProto.INT64, TensorProto.FLOAT
  inputs = [helper.make_tensor_value_info(name, int64, ["texts", "tokens"])
            for name in ("input_ids", "attention_mask")]
  outputs = [helper.make_tensor_value_info("embedding", float32, ["texts", width])]
  constants = [numpy_helper.from_array(value, name) for name, value in graph.constants.items()]
  made = helper.make_graph(graph.nodes, f"{model.name}-{variant}", inputs, outputs, constants)
  opsets = [helper.make_opsetid("", 17), helper.make_opsetid(CONTRIB, 1)]
  return helper.make_model(made, opset_imports=opsets, ir_version=9)


def cached(model: Path, variant: str, cache: Path) -> Path:
  """The graph as a file, built on first use."""
  path = cache / f"{model.name}-{variant}.onnx"
  if not path.is_file():
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    onnx.save(build(model, variant), partial)
    partial.rename(path)
  return path
