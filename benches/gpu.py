#!/usr/bin/env python3
"""Compares the engine with PyTorch on one GPU, and checks its embeddings, part by part.

  minilm     fixed shapes, MiniLM-L6 as published
  base       256 rows of 128 tokens, bert-base geometry with random weights
  large      the same, bge-large geometry
  mix        sentences of real lengths, 1,024 a batch: packed here, padded to the longest there
  accuracy   cosines to FP32 for MiniLM and three random models, and the rank correlation on STS

In a timed part the peer (benches/peers/torch_encoder.py) compiles once and stays alive; then the
sides take turns for some rounds, so that a slow minute falls on both, and medians over the rounds
are compared. The peer's figure is that of its fastest variant. `captured` is the peer's compiled
code in a CUDA graph captured by hand, without Python's part of a call; it is shown, not judged.
Nothing is downloaded. A part takes up to four minutes, most of it the peer's compiler.

  python3 benches/gpu.py --program forebay --model MiniLM --only minilm --output OUT
  python3 benches/gpu.py --program forebay --model MiniLM --only mix --mix stsb-en-test.csv
  python3 benches/gpu.py --program forebay --model MiniLM --only base,large,accuracy

`--mix` takes one text a line, or an STS file (sentence1,sentence2,score), of which both sentences
are used in the file's order. Each part writes PART.json and PART.md into the output folder. The
program is asked for its figures like this, and has to write these columns at least:

  forebay bench engine --model DIR --device cuda:0 --precision f16 --shapes 1x32,8x128 \
      --mix FILE --mix-batch 1024 --csv OUT
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benches" / "peers"
FIXTURES = ROOT / "crates/forebay-cli/tests/fixtures"
sys.path.insert(0, str(ROOT / "benches"))
from sentences import sentences  # noqa: E402

# Columns of `forebay bench engine --csv` that are read here, by name; one row for each shape and
# one for the mix. `case` is shape or mix. `device_ms_p50`: K batches back to back between two
# events, inputs in place, elapsed / K, median of the groups. `host_ms_*`: one blocking call alone,
# ids in page-locked memory to float32 rows in page-locked memory. The mix has the mean over its
# batches of these medians, and the mean length of a text as `tokens_per_row`.
CSV_COLUMNS = ("case", "model", "precision", "rows", "tokens_per_row", "tokens", "device_ms_p50",
               "host_ms_p50", "host_ms_p99")

# part, case, figure, least ratio of the peer's time to ours, and what is aimed at
GOALS = (
  ("minilm", "256x128", "device", 1.6, 2.0),
  ("minilm", "32x128", "device", 1.6, None),
  ("minilm", "8x128", "device", 1.6, None),
  ("minilm", "1x32", "host", 2.0, 2.7),
  ("base", "256x128", "device", 1.0, None),
  ("large", "256x128", "device", 1.0, None),
  ("mix", "mix", "device", 3.0, None),
  ("mix", "mix", "host", 3.0, None),
)
SHAPES = {"minilm": "1x32,8x128,32x128,256x128", "base": "256x128", "large": "256x128"}
GEOMETRY = {"base": "bert-base", "large": "bge-large"}
# model, least cosine in F16 and BF16; the published one against the committed rows. BF16 has no
# figure to reach on random weights: `--peer` shows what the type itself costs there.
ACCURACY = (("minilm", "f16=0.9999,bf16=0.999"), ("bge-small", "f16=0.999,bf16"),
            ("bert-base", "f16=0.999,bf16"), ("bge-large", "f16=0.999,bf16"))
SPEARMAN, SPEARMAN_MARGIN = 0.8203, 0.001
PARTS = ("minilm", "base", "large", "mix", "accuracy")


def say(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


def command_line(parts: list) -> list[str]:
  return [str(part) for part in parts]


def run(what: str, command: list, timeout_s: float, **variables: str) -> str:
  """Standard output of a command that has to succeed."""
  started = time.monotonic()
  done = subprocess.run(command_line(command), capture_output=True, text=True, timeout=timeout_s,
                        env={**os.environ, **variables})
  if done.returncode != 0:
    line = " ".join(command_line(command))
    raise SystemExit(f"`{line}` ended with {done.returncode}:\n{done.stdout[-2000:]}\n"
                     f"{done.stderr[-6000:]}")
  say(f"  {what}: {time.monotonic() - started:.1f} s")
  return done.stdout


class Peer:
  """torch_encoder.py in a process that stays alive between the rounds."""

  def __init__(self, arguments: argparse.Namespace, model: Path, work: list) -> None:
    command = [sys.executable, PEERS / "torch_encoder.py", "--model", model, "--serve",
               "--device", arguments.device, "--precision", arguments.precision,
               "--cache", arguments.work / "inductor", *arguments.peer_options, *work]
    self.process = subprocess.Popen(command_line(command), stdin=subprocess.PIPE,
                                    stdout=subprocess.PIPE, text=True)
    # Waiting for an answer has no end of its own.
    self.alarm = threading.Timer(arguments.timeout_s, self.process.kill)
    self.alarm.daemon = True
    self.alarm.start()
    self.about = self.answer()

  def answer(self) -> dict | list:
    for line in self.process.stdout:
      # The compiler may print as well.
      if line.startswith(("{", "[")):
        return json.loads(line)
    raise SystemExit(f"torch_encoder.py ended with {self.process.wait()}, or was too slow")

  def round(self) -> list[dict]:
    started = time.monotonic()
    self.process.stdin.write("round\n")
    self.process.stdin.flush()
    rows = self.answer()
    say(f"  peer: {time.monotonic() - started:.1f} s")
    return rows

  def close(self) -> None:
    self.alarm.cancel()
    self.process.stdin.close()
    try:
      self.process.wait(timeout=20)
    except subprocess.TimeoutExpired:
      self.process.kill()
      self.process.wait()


def own_round(arguments: argparse.Namespace, model: Path, work: list) -> dict[str, dict]:
  """One run of `forebay bench engine`: its rows by the name of their case."""
  table = arguments.work / "engine.csv"
  table.unlink(missing_ok=True)
  run("forebay", [arguments.program, "bench", "engine", "--model", model, "--device",
                  arguments.device, "--precision", arguments.precision, *work, "--csv", table],
      arguments.timeout_s)
  with table.open(encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
  if not rows or not set(CSV_COLUMNS) <= set(rows[0]):
    raise SystemExit(f"{table} needs a row and the columns {', '.join(CSV_COLUMNS)}")
  made = {}
  for row in rows:
    name = "mix" if row["case"] == "mix" else f"{row['rows']}x{float(row['tokens_per_row']):.0f}"
    made[name] = {key: float(row[key]) for key in CSV_COLUMNS[3:]}
  return made


def peer_cases(rows: list[dict]) -> dict[str, dict]:
  """The peer's rows as case/group; the batches of a mix become their mean."""
  grouped: dict[str, list] = {}
  for row in rows:
    case = row["name"] if row["case"] == "shape" else row["case"]
    grouped.setdefault(f"{case}/{row['group']}", []).append(row)
  made = {}
  for name, batches in grouped.items():
    case = name.partition("/")[0]
    whole = max(len(rows) for key, rows in grouped.items() if key.startswith(f"{case}/"))
    if len(batches) < whole:
      continue  # not every batch has this variant: its mean would be of other work
    keys = ("rows", "tokens", "padded", "device_ms_p50", "host_ms_p50")
    made[name] = {
      **{key: statistics.fmean([batch[key] for batch in batches]) for key in keys},
      "host_ms_p99": max(batch["host_ms_p99"] for batch in batches),
      "variant": " ".join(dict.fromkeys(batch["variant_device"] for batch in batches)),
    }
  return made


def medians(rounds: list[dict[str, dict]]) -> dict[str, dict]:
  """Case by case, the median over the rounds of every figure."""
  made = {}
  for case, row in rounds[0].items():
    made[case] = {key: statistics.median(one[case][key] for one in rounds)
                  if isinstance(value, float) else value for key, value in row.items()}
  return made


def compare(part: str, own: dict, peer: dict, own_rounds: list, peer_rounds: list) -> list[dict]:
  """Every ratio of the peer's time to ours, with its verdict where there is a goal."""
  rows = []
  for name, theirs in peer.items():
    case, _, group = name.partition("/")
    ours = "mix" if case == "bucketed" else case
    for figure in ("device", "host"):
      key = f"{figure}_ms_p50"
      row = {"case": case, "group": group, "variant": theirs["variant"], "figure": figure,
             "own_ms": own[ours][key], "peer_ms": theirs[key],
             "ratio": theirs[key] / own[ours][key], "own_p99_ms": own[ours]["host_ms_p99"],
             "peer_p99_ms": theirs["host_ms_p99"], "rows": own[ours]["rows"],
             "rounds": [b[name][key] / a[ours][key] for a, b in zip(own_rounds, peer_rounds)]}
      for goal_part, goal_case, goal_figure, least, aim in GOALS:
        if group == "compiled" and (goal_part, goal_case, goal_figure) == (part, case, figure):
          row |= {"least": least, "aim": aim, "met": row["ratio"] >= least}
      rows.append(row)
  return rows


def markdown(part: str, about: dict, rows: list[dict]) -> str:
  lines = [f"## {part}", "", f"{about['device']}, {about['model']}, {about['precision']}, "
           f"{about['peer']}, median of {about['rounds']} rounds.", "",
           "| case | figure | peer's variant | peer, ms | forebay, ms | ratio (rounds) | goal | |",
           "|---|---|---|---|---|---|---|---|"]
  for row in rows:
    each = ", ".join(f"{ratio:.2f}" for ratio in row["rounds"])
    goal = f"≥ {row['least']}" if "least" in row else ""
    goal += f", aim {row['aim']}" if row.get("aim") else ""
    verdict = ("met" if row["met"] else "**missed**") if "met" in row else ""
    lines.append(f"| {row['case']} | {row['figure']} | {row['variant']} | {row['peer_ms']:.4f} | "
                 f"{row['own_ms']:.4f} | {row['ratio']:.2f} ({each}) | {goal} | {verdict} |")
  eager = []
  for case, variants in about["prepared"].items():
    times = [time for name, time in variants.items() if name.startswith("eager")]
    if times:
      device, host = (min(time[f"{figure}_ms_p50"] for time in times)
                      for figure in ("device", "host"))
      eager.append(f"{case} {device:.3f} / {host:.3f}")
  lines += ["", f"Peer without a compiler, device / host to host, ms: {', '.join(eager)}."]
  if about["cudagraph_skips"]:
    lines += ["", f"{about['cudagraph_skips']} compiled functions of the peer ran without a graph."]
  if about["skipped"]:
    lines += ["", f"Not tried within the budget, or failed: {', '.join(about['skipped'])}."]
  return "\n".join(lines) + "\n"


def timed_part(part: str, arguments: argparse.Namespace) -> bool:
  model = arguments.model if part in ("minilm", "mix") else random_model(arguments, GEOMETRY[part])
  if part == "mix":
    work = ["--mix", mix_lines(arguments), "--mix-batch", arguments.mix_batch]
  else:
    work = ["--shapes", arguments.shapes or SHAPES[part]]
  # Before the peer takes up the GPU: tuning and compiling kernels is no part of a round.
  own_round(arguments, model, work)
  peer = Peer(arguments, model, work)
  own_rounds, peer_rounds = [], []
  try:
    for number in range(arguments.rounds):
      say(f"round {number + 1} of {arguments.rounds}")
      own_rounds.append(own_round(arguments, model, work))
      peer_rounds.append(peer_cases(peer.round()))
  finally:
    peer.close()
  own, theirs = medians(own_rounds), medians(peer_rounds)
  rows = compare(part, own, theirs, own_rounds, peer_rounds)
  about = {**peer.about, "rounds": arguments.rounds, "gpu": gpu_state()}
  report = {"part": part, **about, "own": own, "theirs": theirs, "ratios": rows,
            "own_rounds": own_rounds, "peer_rounds": peer_rounds}
  write(arguments.output, part, report, markdown(part, about, rows))
  return all(row.get("met", True) for row in rows)


def accuracy_part(arguments: argparse.Namespace) -> bool:
  """Runs accuracy_gpu.py for every model, and the STS file if there is one."""
  results, met, lines = [], True, ["## accuracy", ""]
  for name, precisions in ACCURACY:
    output = arguments.work / f"accuracy-{name}.json"
    output.unlink(missing_ok=True)
    model = arguments.model if name == "minilm" else random_model(arguments, name)
    extra = (["--reference", FIXTURES / "reference_f32.npy"] if name == "minilm" else [])
    command = [sys.executable, ROOT / "benches/accuracy_gpu.py", "--program", arguments.program,
               "--model", model, "--device", arguments.device, "--precisions", precisions,
               "--peer", "--output", output, *extra]
    started = time.monotonic()
    code = subprocess.run(command_line(command), timeout=arguments.timeout_s).returncode
    say(f"  {name}: {time.monotonic() - started:.1f} s")
    met = met and code == 0
    if output.is_file():
      results.append(json.loads(output.read_text(encoding="utf-8")))
    else:
      lines += [f"{name}: **failed** with {code}, no figures.", ""]
  lines += ["| model | precision | min cosine | mean | sentence-transformers, min | goal | |",
            "|---|---|---|---|---|---|---|"]
  for result in results:
    for row in result["rows"]:
      verdict = "" if row["limit"] is None else ("met" if row["met"] else "**missed**")
      lines.append(f"| {result['model']} | {row['precision']} | {row['cosine_min']:.6f} | "
                   f"{row['cosine_mean']:.6f} | {row.get('peer', {}).get('cosine_min', 0):.6f} | "
                   f"{'' if row['limit'] is None else '≥ ' + str(row['limit'])} | {verdict} |")
  spearman = {}
  if arguments.sts:
    for precision in ("f16", "bf16"):
      text = run(f"sts {precision}",
                 [arguments.program, "eval", "sts", "--json", "--model", arguments.model,
                  "--device", arguments.device, "--precision", precision, arguments.sts],
                 arguments.timeout_s, FOREBAY_DEVICES__FALLBACK="none")
      spearman[precision] = json.loads(text)["spearman"]
      near = abs(spearman[precision] - SPEARMAN) <= SPEARMAN_MARGIN
      met = met and near
      lines += ["", f"STS Spearman {precision}: {spearman[precision]:.5f}, within "
                f"{SPEARMAN_MARGIN} of {SPEARMAN}: {'met' if near else '**missed**'}"]
  write(arguments.output, "accuracy", {"models": results, "spearman": spearman, "met": met},
        "\n".join(lines) + "\n")
  return met


def random_model(arguments: argparse.Namespace, geometry: str) -> Path:
  """The folder of a random model, written on first use."""
  folder = arguments.work / geometry
  if not (folder / "model.safetensors").is_file():
    run(f"random {geometry}", [sys.executable, PEERS / "random_model.py", "--geometry", geometry,
                               "--tokenizer", arguments.model, "--output", folder],
        arguments.timeout_s)
  return folder


def mix_lines(arguments: argparse.Namespace) -> Path:
  """The sentences of the mix as a file with one a line."""
  path = arguments.work / "mix.txt"
  if arguments.mix is None:
    say("no --mix: short made sentences instead, of which few are long")
    lines = sentences(4 * arguments.mix_batch)
  elif arguments.mix.suffix == ".csv":
    with arguments.mix.open(encoding="utf-8", newline="") as file:
      lines = [" ".join(text.split()) for row in csv.reader(file) for text in row[:2]]
  else:
    lines = arguments.mix.read_text(encoding="utf-8").splitlines()
  path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
  return path


def gpu_state() -> str:
  """Name, driver and clocks, as the driver's tool says them."""
  if shutil.which("nvidia-smi") is None:
    return "nvidia-smi not found"
  fields = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"
  done = subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv"],
                        capture_output=True, text=True, timeout=30)
  return done.stdout.strip()


def write(folder: Path, part: str, report: dict, table: str) -> None:
  (folder / f"{part}.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
  (folder / f"{part}.md").write_text(table, encoding="utf-8")
  print(table, flush=True)


def main() -> int:
  parser = argparse.ArgumentParser(description="compare with PyTorch on the GPU")
  parser.add_argument("--program", "--forebay", type=Path, default=ROOT / "target/release/forebay")
  parser.add_argument("--model", type=Path, default=ROOT / ".forebay/models/all-MiniLM-L6-v2")
  parser.add_argument("--only", default=",".join(PARTS), help="parts (default %(default)s)")
  parser.add_argument("--device", default="cuda:0", help="(default %(default)s)")
  parser.add_argument("--precision", choices=["f16", "bf16", "f32"], default="f16",
                      help="of both sides in the timed parts; f32 is for the CPU")
  parser.add_argument("--shapes", help="other shapes for minilm, base and large")
  parser.add_argument("--mix", type=Path, help="text lines, or an STS file ending in .csv")
  parser.add_argument("--mix-batch", type=int, default=1024, help="(default %(default)s)")
  parser.add_argument("--sts", type=Path, help="STS file for the rank correlation")
  parser.add_argument("--rounds", type=int, default=3, help="(default %(default)s)")
  parser.add_argument("--peer-options", type=str.split, default=[], metavar="'OPTION ...'",
                      help="passed to torch_encoder.py, such as '--budget-s 60'")
  parser.add_argument("--timeout-s", type=float, default=420.0,
                      help="for any one process (default %(default)s)")
  parser.add_argument("--work", type=Path, default=ROOT / ".forebay/gpu",
                      help="random models and the peer's compiled code (default %(default)s)")
  parser.add_argument("--output", type=Path, default=ROOT / ".forebay/gpu/results")
  parser.add_argument("--strict", action="store_true", help="exit 1 if a goal is missed")
  arguments = parser.parse_args()
  parts = arguments.only.split(",")
  if not set(parts) <= set(PARTS) or arguments.rounds < 1:
    parser.error(f"--only takes {', '.join(PARTS)}; --rounds at least 1")
  # Models are local; without this, loading one may wait for a network that is not there.
  os.environ.setdefault("HF_HUB_OFFLINE", "1")
  for folder in (arguments.work, arguments.output):
    folder.mkdir(parents=True, exist_ok=True)

  met = True
  for part in parts:
    started = time.monotonic()
    say(part)
    done = accuracy_part(arguments) if part == "accuracy" else timed_part(part, arguments)
    met = met and done
    say(f"{part}: {time.monotonic() - started:.0f} s")
  print(f"all figures: {arguments.output}")
  return 1 if arguments.strict and not met else 0


if __name__ == "__main__":
  sys.exit(main())
