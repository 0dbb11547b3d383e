#!/usr/bin/env python3
"""Runs published clients, unmodified, against the daemon with the real model: the official ones of
OpenAI for Python and Node, huggingface_hub, LangChain, LlamaIndex. What they get must be what
`forebay embed` writes for the same texts, bit for bit, and their errors of the right classes.

The clients are installed, at the versions of requirements.txt and package-lock.json, into a folder
that git ignores. Only Python's standard library and npm are needed.

  cargo xtask clients
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from daemon import ROOT, Daemon, add_places

HERE = Path(__file__).resolve().parent
KEY = "conformance-key"
# A gate so narrow that one request with many texts keeps all others out.
NARROW = "[admission]\ninteractive_requests_max = 8\n"


def say(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


def fill(folder: Path, wanted: list[Path], install) -> None:
  """Installs unless these very files have been installed."""
  digest = hashlib.sha256(b"".join(path.read_bytes() for path in wanted)).hexdigest()
  marker = folder / "installed.sha256"
  if marker.is_file() and marker.read_text() == digest:
    return
  say(f"installing {', '.join(path.name for path in wanted)} into {folder}")
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  install()
  marker.write_text(digest)


def python_environment(folder: Path) -> Path:
  python = folder / "bin" / "python"
  requirements = HERE / "requirements.txt"

  def install() -> None:
    venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet",
                    "-r", requirements], check=True, stdout=sys.stderr)

  fill(folder, [requirements], install)
  return python


def node_environment(folder: Path) -> Path:
  """The folder with the packages; modules are looked for beside the script, so it goes there."""
  wanted = [HERE / "package.json", HERE / "package-lock.json"]

  def install() -> None:
    for path in wanted:
      shutil.copy(path, folder)
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True,
                   stdout=sys.stderr)

  fill(folder, wanted, install)
  return Path(shutil.copy(HERE / "clients.mjs", folder))


def run(what: str, command: list, given: dict) -> list[dict]:
  """The results that a program prints, one JSON object per line."""
  say(what)
  done = subprocess.run([str(part) for part in command], input=json.dumps(given), text=True,
                        stdout=subprocess.PIPE)
  results = [json.loads(line) for line in done.stdout.splitlines()]
  if done.returncode != 0 or not results:
    error = f"it ended with {done.returncode} after {len(results)} checks"
    results.append({"client": what, "what": "runs to its end", "error": error})
  return results


def main() -> int:
  parser = argparse.ArgumentParser(description="run published clients against the daemon")
  add_places(parser)
  parser.add_argument("--into", type=Path, default=ROOT / ".forebay/clients",
                      help="folder for the clients (default %(default)s)")
  arguments = parser.parse_args()
  python = python_environment(arguments.into / "python")
  script = node_environment(arguments.into / "node")

  place = (arguments.program, arguments.model, arguments.onnxruntime)
  texts = HERE / "texts.txt"
  with Daemon(*place, key=KEY) as daemon, Daemon(*place, NARROW, key=KEY) as narrow:
    given = {"address": daemon.address, "narrow_address": narrow.address,
             "model": arguments.model.name, "texts": texts.read_text("utf-8").splitlines(),
             "vectors": daemon.vectors(texts)}
    results = run("clients for Python", [python, HERE / "checks.py"], given)
    results += run("clients for Node", ["node", script], given)

  width = max(len(result["client"]) for result in results)
  for result in results:
    state = "ok" if result["error"] is None else "FAILED"
    print(f"{result['client']:{width}}  {state:6}  {result['what']}")
  failed = [result for result in results if result["error"] is not None]
  for result in failed:
    print(f"\n{result['client']}: {result['what']}\n{result['error']}")
  print(f"\n{len(results) - len(failed)} of {len(results)} checks passed")
  return 1 if failed else 0


if __name__ == "__main__":
  sys.exit(main())
