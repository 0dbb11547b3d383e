"""A daemon with the real model on a loopback port of its own, and the vectors that `forebay embed`
writes for the same texts. Only Python's standard library is needed."""

import argparse
import ast
import hashlib
import os
import re
import signal
import struct
import subprocess
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[3]
START_S_MAX = 120
END_S_MAX = 60


def add_places(parser: argparse.ArgumentParser, program: str = "target/release/forebay") -> None:
  """The options that say where program, model and library are."""
  parser.add_argument("--program", type=Path, default=ROOT / program)
  parser.add_argument("--model", type=Path, default=ROOT / ".forebay/models/all-MiniLM-L6-v2")
  parser.add_argument("--onnxruntime", type=Path, default=ROOT / ".forebay/onnxruntime")


class Daemon:
  """Runs while the `with` block does; leaving it fails if the daemon did not end in order."""

  def __init__(self, program: Path, model: Path, onnxruntime: Path, settings: str = "",
               precision: str = "f32", key: str | None = None, rungs: str = "cpu") -> None:
    self.folder = tempfile.TemporaryDirectory(prefix="forebay-clients-")
    place = Path(self.folder.name)
    keys = ""
    if key is not None:
      keys = f"[auth]\nkey_hashes = ['{hashlib.sha256(key.encode()).hexdigest()}']\n"
    devices = ", ".join(f"'{rung}'" for rung in rungs.split(","))
    self.config = place / "forebay.toml"
    self.config.write_text(
      f"[model]\npath = '{model}'\nprecision = '{precision}'\n[devices]\nrungs = [{devices}]\n[cpu]\nonnxruntime = '{onnxruntime}'\n"
      f"[server]\nlisten = '127.0.0.1:0'\nsocket = ''\nadmin_socket = ''\ndrain_notice_ms = 50\n"
      f"{keys}{settings}")
    self.program, self.said, self.address = program, [], ""

  def environment(self) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FOREBAY_")}

  def __enter__(self) -> "Daemon":
    self.process = subprocess.Popen([self.program, "serve", "--config", self.config],
                                    stderr=subprocess.PIPE, text=True, env=self.environment())
    listening = threading.Event()

    def read() -> None:
      for line in self.process.stderr:
        self.said.append(line)
        found = re.search(r"listening on (http://\S+)", line)
        if found:
          self.address = found[1]
          listening.set()
      listening.set()

    self.reader = threading.Thread(target=read)
    self.reader.start()
    if not listening.wait(START_S_MAX) or not self.address:
      self.process.kill()
      raise SystemExit("the daemon does not listen:\n" + "".join(self.said))
    return self

  def __exit__(self, *_) -> None:
    self.process.send_signal(signal.SIGTERM)
    try:
      status = self.process.wait(END_S_MAX)
    except subprocess.TimeoutExpired:
      self.process.kill()
      status = "none: it had to be killed"
    self.reader.join()
    self.folder.cleanup()
    if status != 0:
      raise SystemExit(f"the daemon's exit code is {status}:\n" + "".join(self.said[-30:]))

  def resident_bytes(self) -> int:
    """Memory that the daemon itself occupies, without its worker."""
    status = Path(f"/proc/{self.process.pid}/status").read_text()
    return 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])

  def vectors(self, texts: Path) -> list[list[float]]:
    """What `forebay embed` writes for the lines of a file."""
    output = Path(self.folder.name) / "vectors.npy"
    subprocess.run([self.program, "embed", "--config", self.config, "--input", texts, "--output",
                    output], check=True, env=self.environment(), stderr=subprocess.DEVNULL)
    return read_npy(output)


def read_npy(path: Path) -> list[list[float]]:
  """A two-dimensional little-endian float32 array."""
  data = path.read_bytes()
  length = struct.unpack("<H", data[8:10])[0]
  header = ast.literal_eval(data[10:10 + length].decode())
  rows, width = header["shape"]
  if header["descr"] != "<f4" or header["fortran_order"]:
    raise SystemExit(f"{path}: {header} is not as expected")
  values = struct.unpack(f"<{rows * width}f", data[10 + length:])
  return [list(values[row * width:(row + 1) * width]) for row in range(rows)]
