#!/usr/bin/env python3
"""Another server with text-embeddings-inference's `/embed`, to put beside ours: Qdrant's fastembed, which
runs ONNX Runtime, behind FastAPI and uvicorn. A request's texts are its batch, as in most such servers.

  python3 -m venv peer && peer/bin/pip install -r benches/peers/fastembed-requirements.txt
  peer/bin/python benches/peers/fastembed_server.py --model MODEL --graph MODEL.onnx --port 8090

MODEL is a folder with tokenizer.json, MODEL.onnx its graph from ids to embeddings (`bert_onnx.py` writes one).
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def load(model: Path, graph: Path, folder: Path) -> TextEmbedding:
  for name in FILES:
    shutil.copy(model / name, folder)
  (folder / "model.onnx").symlink_to(graph.resolve())
  width = json.loads((model / "config.json").read_text())["hidden_size"]
  TextEmbedding.add_custom_model(
    model="peer", pooling=PoolingType.DISABLED, normalization=False, dim=width, model_file="model.onnx",
    sources=ModelSource(url="http://127.0.0.1/none"))
  return TextEmbedding("peer", specific_model_path=str(folder))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--model", type=Path, required=True)
  parser.add_argument("--graph", type=Path, required=True)
  parser.add_argument("--port", type=int, default=8090)
  arguments = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    engine = load(arguments.model, arguments.graph, Path(folder))
    app = FastAPI()

    # Not async: uvicorn runs it in its thread pool, and the engine lets go of the lock meanwhile.
    @app.post("/embed")
    def embed(request: dict) -> list[list[float]]:
      texts = request["inputs"]
      texts = [texts] if isinstance(texts, str) else texts
      return [row.tolist() for row in engine.embed(texts)]

    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
  main()
