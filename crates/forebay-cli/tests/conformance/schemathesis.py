#!/usr/bin/env python3
"""Asks a daemon whatever its own OpenAPI document allows, and more, and judges the answers by it.

    python3 -m venv /tmp/conformance
    /tmp/conformance/bin/pip install -r crates/forebay-cli/tests/conformance/requirements-schemathesis.txt
    /tmp/conformance/bin/python crates/forebay-cli/tests/conformance/schemathesis.py --seed 1

Starts the daemon on a free TCP port with what `cargo xtask setup` fetches, runs schemathesis with the
seed, and ends the daemon. Fails on a server error other than 503 and 504, on an answer that the
document does not describe, on a request that breaks the document and is accepted, and if the daemon
is not ready afterwards or does not end in order. That a request which the document allows is refused
is no failure: no schema says which token ids a model has, or that two fields exclude each other.
"""

import argparse
import subprocess
import sys
import urllib.request
from pathlib import Path

from daemon import HERE, Daemon, add_places

CHECKS = [
  "not_a_server_error",
  "status_code_conformance",
  "content_type_conformance",
  "response_headers_conformance",
  "response_schema_conformance",
  "allow_header_conformance",
  "unsupported_method",
  "negative_data_rejection",
]

REQUEST_S_MAX = 60


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
  add_places(parser, "target/debug/forebay")
  parser.add_argument("--seed", type=int, default=1)
  parser.add_argument("--examples", type=int, default=100, help="for each operation")
  arguments = parser.parse_args()

  with Daemon(arguments.program, arguments.model, arguments.onnxruntime) as daemon:
    tool = Path(sys.executable).parent / "schemathesis"
    command = [tool, "--config-file", HERE / "schemathesis.toml", "run"]
    command += [f"{daemon.address}/api-doc/openapi.json", "--checks", ",".join(CHECKS)]
    command += ["--seed", str(arguments.seed), "--max-examples", str(arguments.examples)]
    command += ["--request-timeout", str(REQUEST_S_MAX), "--continue-on-failure", "--no-color"]
    judged = subprocess.run(command).returncode
    with urllib.request.urlopen(f"{daemon.address}/readyz", timeout=REQUEST_S_MAX) as answer:
      print("ready after it:", answer.status)
  return judged


if __name__ == "__main__":
  sys.exit(main())
