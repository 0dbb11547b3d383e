#!/usr/bin/env python3
"""Asks a daemon whatever its own OpenAPI document allows, and more, and judges the answers by it.

    python3 -m venv /tmp/conformance
    /tmp/conformance/bin/pip install -r crates/forebay-cli/tests/conformance/requirements-schemathesis.txt
    /tmp/conformance/bin/python crates/forebay-cli/tests/conformance/schemathesis.py --seed 1

Starts the daemon on a free TCP port with the model that `cargo xtask setup` fetches (or --model),
runs schemathesis with the seed, and ends the daemon. Fails on a server error other than 503 and 504,
on an answer that its document does not describe, on a request that breaks the document and is
accepted, and if the daemon does not end in order. That a request which the document allows may be
refused is no failure: no schema says which token ids a model has, or that two fields exclude each
other.
"""

import argparse
import pathlib
import re
import signal
import subprocess
import sys
import threading
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[3]

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

# Time for the daemon to end, and for one request, in seconds.
END_S = 90
REQUEST_S = 60


def start(program, model, device):
    """The daemon, its address, and the thread that passes its log on."""
    command = [program, "serve", "--listen", "127.0.0.1:0", "--device", device]
    command += ["--model", model] if model else []
    daemon = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for line in daemon.stderr:
        found = re.search(r"listening on (http://\S+)", line)
        if found:
            # Read on, or the daemon waits for room in the pipe.
            rest = threading.Thread(target=sys.stderr.writelines, args=(daemon.stderr,))
            rest.start()
            return daemon, found.group(1), rest
        sys.stderr.write(line)
    raise SystemExit(f"the daemon has ended with {daemon.wait()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--program", default=str(ROOT / "target/debug/forebay"))
    parser.add_argument("--model", help="model folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=100, help="for each operation")
    arguments = parser.parse_args()

    daemon, address, log = start(arguments.program, arguments.model, arguments.device)
    try:
        tool = pathlib.Path(sys.executable).parent / "schemathesis"
        command = [tool, "--config-file", HERE / "schemathesis.toml", "run"]
        command += [f"{address}/api-doc/openapi.json", "--checks", ",".join(CHECKS)]
        command += ["--seed", str(arguments.seed), "--max-examples", str(arguments.examples)]
        command += ["--request-timeout", str(REQUEST_S), "--continue-on-failure", "--no-color"]
        judged = subprocess.run(command).returncode
        with urllib.request.urlopen(f"{address}/readyz", timeout=REQUEST_S) as answer:
            print("ready after it:", answer.status)
    finally:
        daemon.send_signal(signal.SIGTERM)
        ended = daemon.wait(timeout=END_S)
        log.join()
    print(f"schemathesis ended with {judged}, the daemon with {ended}")
    return 0 if judged == 0 and ended == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
