#!/usr/bin/env python3
"""Peer: a BERT-family encoder in PyTorch on a GPU, eager and through torch.compile with graphs.

Model, pooling and L2 norm are one function, with 16-bit weights, scaled dot-product attention and
inference mode. Its variants, each compiled for one shape (no dynamic sizes):

  eager             no compilation
  reduce-overhead   torch.compile's mode of that name: CUDA graphs
  max-autotune      the same plus searched kernels; slow to compile, tried while time is left
  captured          torch.compile's default mode, captured into a CUDA graph by hand; not what users
                    write, but it shows what is left when Python's part of a call is gone

Every variant comes with an attention mask, as sentence-transformers passes it, and, where all rows
are full, also without one (PyTorch then has a faster attention kernel). All that are ready within
the preparation budget are timed once; the rounds then time the fastest of each kind.

  device time       inputs on the device; K runs back to back between two events, elapsed / K, a
                    group lasting 10 ms or more; median of the groups. Where Python launches more
                    slowly than the GPU computes, that is in the figure.
  host to host      one call alone: ids in page-locked memory, to the device, run, float32 rows to
                    page-locked memory, synchronise

`--mix FILE`: lines tokenized (not timed), `--mix-batch` to a batch in file order, padded to the
longest line of the batch; a batch counts with its mask. `bucketed` is the same batch sorted by
length and run as four parts, each padded to its own longest line, rounded up to a multiple of 8.

  python3 torch_encoder.py --model DIR --shapes 1x32,8x128,32x128,256x128 --output peer.json
  python3 torch_encoder.py --model DIR --mix lines.txt --output mix.json
  python3 torch_encoder.py --model DIR --device cpu --eager-only --shapes 2x16     # try it out

With `--serve` it prints one JSON line when all is compiled and one more for each line read from
standard input, which starts a round: so that another program can take turns with it.
"""

import argparse
import json
import os
import statistics
import sys
import time
import types
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parent))
from torch_inputs import Case, mix_cases, shape_case  # noqa: E402

WARM_UP_S, GROUP_MS, GROUPS, HOST_RUNS, HOST_RUNS_MIN = 0.3, 10.0, 20, 1000, 20
# Longest time for either figure, in a round and in the comparison of the variants.
ROUND_S, QUICK_S = 1.5, 0.3
# Seconds of the budget that have to be left to begin compiling a variant.
COMPILE_S = {"eager": 0, "reduce-overhead": 0, "captured": 15, "max-autotune": 45}
ORDER = ("reduce-overhead", "eager", "captured", "max-autotune")
COMPILED = ("reduce-overhead", "max-autotune")


def say(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


class Encoder:
  """The model of a folder with its pooling, and its compiled variants."""

  def __init__(self, model: Path, device: str, precision: str) -> None:
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}[precision]
    loaded = transformers.AutoModel.from_pretrained(
      str(model), dtype=dtype, attn_implementation="sdpa", local_files_only=True,
      add_pooling_layer=False)
    self.model = loaded.eval().to(device)
    self.device, self.cuda = torch.device(device), device.startswith("cuda")
    pooling = json.loads((model / "1_Pooling" / "config.json").read_text())
    modes = [mode for mode in ("cls", "mean")
             if pooling.get("pooling_mode") == mode or pooling.get({
               "cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}[mode])]
    if len(modes) != 1:
      raise SystemExit(f"{model}: pooling is neither cls nor mean alone")
    self.pooling = modes[0]
    self.functions: dict = {}

  def function(self):
    """The whole computation as a function whose code object belongs to no other.

    Compiled variants are kept with the code object and tried in turn at each call, so that variants
    of one code object would slow each other down.
    """
    model, pooling = self.model, self.pooling

    def encode(ids, mask=None):
      hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
      if pooling == "cls":
        row = hidden[:, 0].float()
      elif mask is None:
        row = hidden.mean(dim=1, dtype=torch.float32)
      else:
        kept = mask.unsqueeze(-1).float()
        row = (hidden.float() * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1e-9)
      return torch.nn.functional.normalize(row, dim=-1)

    return types.FunctionType(encode.__code__.replace(), encode.__globals__, encode.__name__,
                              encode.__defaults__, encode.__closure__)

  def compiled(self, masked: bool, mode: str):
    made = torch.compile(self.function(), mode=mode, dynamic=False, fullgraph=True)
    return made if masked else lambda ids, mask: made(ids)

  def variant(self, kind: str, masked: bool, size: tuple):
    """A callable (ids, mask) -> rows for inputs of this size on the device."""
    key = (kind, masked, size)
    if key not in self.functions:
      if kind == "eager":
        function = self.function()
        made = function if masked else lambda ids, mask: function(ids)
      elif kind == "captured":
        made = Captured(self.compiled(masked, "default"), size, self.device)
      else:
        graph = self.compiled(masked, kind)

        def made(ids, mask):
          torch.compiler.cudagraph_mark_step_begin()
          return graph(ids, mask)
      self.functions[key] = made
    return self.functions[key]


class Captured:
  """A function captured into a CUDA graph; a call copies its inputs to where the graph reads."""

  def __init__(self, function, size: tuple, device: torch.device) -> None:
    self.ids = torch.ones(size, dtype=torch.int64, device=device)
    self.mask = torch.ones(size, dtype=torch.int64, device=device)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
      for _ in range(3):
        function(self.ids, self.mask)
    torch.cuda.current_stream().wait_stream(side)
    self.graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(self.graph):
      self.rows = function(self.ids, self.mask)

  def __call__(self, ids, mask):
    self.ids.copy_(ids, non_blocking=True)
    if mask is not None:
      self.mask.copy_(mask, non_blocking=True)
    self.graph.replay()
    return self.rows


class Run:
  """One variant of one case, with its buffers."""

  def __init__(self, encoder: Encoder, case: Case, kind: str, masked: bool) -> None:
    self.cuda, self.device, self.masked = encoder.cuda, encoder.device, masked
    self.parts = []
    for part in case.parts:
      ids = [one.to(self.device, copy=True) for one in part.ids]
      mask = part.mask.to(self.device, copy=True) if masked else None
      function = encoder.variant(kind, masked, part.size)
      rows = function(ids[0], mask).cpu()
      pinned = torch.empty_like(rows, pin_memory=self.cuda)
      self.parts.append((part, ids, mask, function, pinned))
    self.first = torch.cat([self.rows(index) for index in range(len(self.parts))])

  def rows(self, index: int) -> torch.Tensor:
    _, ids, mask, function, _ = self.parts[index]
    return function(ids[0], mask).float().cpu().clone()

  def on_device(self, number: int) -> None:
    for _, ids, mask, function, _ in self.parts:
      function(ids[number % len(ids)], mask)

  def through_host(self, number: int) -> None:
    for part, ids, mask, function, pinned in self.parts:
      ids[0].copy_(part.ids[number % len(part.ids)], non_blocking=True)
      if mask is not None:
        mask.copy_(part.mask, non_blocking=True)
      pinned.copy_(function(ids[0], mask), non_blocking=True)
    self.wait()

  def wait(self) -> None:
    if self.cuda:
      torch.cuda.current_stream().synchronize()

  def group_ms(self, runs: int) -> float:
    """Elapsed time of some runs back to back, on the device's clock."""
    if not self.cuda:
      started = time.perf_counter()
      for number in range(runs):
        self.on_device(number)
      return 1e3 * (time.perf_counter() - started)
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    for number in range(runs):
      self.on_device(number)
    after.record()
    after.synchronize()
    return before.elapsed_time(after)

  def timed(self, limit_s: float) -> dict:
    """Device and host-to-host times in ms, spending about `limit_s` on each."""
    until, runs, spent = time.perf_counter() + WARM_UP_S, 0, 0.0
    while runs < 3 or time.perf_counter() < until:
      spent = self.group_ms(2) / 2
      runs += 2
    each = max(1, round(0.5 + GROUP_MS / max(spent, 1e-3)))
    until, groups = time.perf_counter() + limit_s, []
    while len(groups) < GROUPS and (len(groups) < 3 or time.perf_counter() < until):
      groups.append(self.group_ms(each) / each)

    for number in range(10):
      self.through_host(number)
    until, taken = time.perf_counter() + limit_s, []
    while len(taken) < HOST_RUNS and (len(taken) < HOST_RUNS_MIN or time.perf_counter() < until):
      started = time.perf_counter()
      self.through_host(len(taken))
      taken.append(1e3 * (time.perf_counter() - started))
    taken.sort()
    return {"device_ms_p50": statistics.median(groups), "host_ms_p50": statistics.median(taken),
            "host_ms_p99": taken[int(0.99 * len(taken))], "runs": len(taken)}


class Bench:
  """Prepares the variants of all cases, then times the fastest in rounds."""

  def __init__(self, encoder: Encoder, cases: list[Case], kinds: list[str],
               budget_s: float) -> None:
    self.encoder, self.cases, self.kinds = encoder, cases, kinds
    self.until = time.monotonic() + budget_s
    self.skipped: list[str] = []

  def prepare(self) -> None:
    for kind in [kind for kind in ORDER if kind in self.kinds]:
      for masked in (False, True):
        # Searched kernels matter where the work is large, and there may be time for one shape only.
        for case in reversed(self.cases) if kind == "max-autotune" else self.cases:
          if masked or all(part.full for part in case.parts):
            self.try_variant(case, kind, masked)

  def try_variant(self, case: Case, kind: str, masked: bool) -> None:
    name = f"{kind}{'+mask' if masked else ''}"
    first = kind == "eager" or not case.runs
    # Searched kernels only for the mask that was better without; the rest costs minutes.
    known = {other: case.timed.get(f"reduce-overhead{end}") for other, end in
             ((False, ""), (True, "+mask"))}
    if kind in ("max-autotune", "captured") and all(known.values()):
      if known[masked]["device_ms_p50"] > known[not masked]["device_ms_p50"]:
        return
    left = self.until - time.monotonic()
    if not first and (case.kind == "bucketed" and kind in ("captured", "max-autotune")
                      or left < COMPILE_S[kind] or left <= 0):
      self.skipped.append(f"{case.name} {name}")
      return
    started = time.monotonic()
    try:
      run = Run(self.encoder, case, kind, masked)
    except Exception as error:  # the compiler's errors have no common class
      if kind in ("eager", "reduce-overhead"):
        raise
      line = str(error).strip().splitlines()[:1]
      say(f"  {case.name:12} {name:22} failed: {type(error).__name__}: {' '.join(line)}")
      self.skipped.append(f"{case.name} {name}: {type(error).__name__}")
      return
    prepared = time.monotonic() - started
    if case.runs:
      reference = next(iter(case.runs.values())).first
      agreement = torch.nn.functional.cosine_similarity(run.first, reference).min().item()
      if not agreement > 0.99:
        raise SystemExit(f"{case.name} {name}: cosine {agreement} to another variant's rows")
    if not torch.isfinite(run.first).all():
      raise SystemExit(f"{case.name} {name}: not all values are finite")
    case.runs[name], case.timed[name] = run, run.timed(QUICK_S)
    row = case.timed[name]
    say(f"  {case.name:12} {name:22} device {row['device_ms_p50']:8.3f} ms, host to host "
        f"{row['host_ms_p50']:8.3f} ms; ready in {prepared:.0f} s")

  def best(self, case: Case, among: tuple, figure: str) -> str | None:
    names = [name for name in case.timed if name.split("+")[0] in among]
    return min(names, key=lambda name: case.timed[name][figure], default=None)

  def round(self) -> list[dict]:
    """Times, for each case, the fastest compiled variant and the captured one."""
    groups = [("compiled", COMPILED), ("captured", ("captured",))]
    if not set(COMPILED) & set(self.kinds):
      groups.append(("eager", ("eager",)))
    rows = []
    for case in self.cases:
      for group, kinds in groups:
        picks = [self.best(case, kinds, figure) for figure in ("device_ms_p50", "host_ms_p50")]
        if picks[0] is None:
          continue
        times = {name: case.runs[name].timed(ROUND_S) for name in dict.fromkeys(picks)}
        rows.append({
          "case": case.kind, "name": case.name, "group": group, "rows": case.rows,
          "tokens": case.tokens, "padded": case.padded,
          "variant_device": picks[0], "variant_host": picks[1],
          "device_ms_p50": times[picks[0]]["device_ms_p50"],
          "host_ms_p50": times[picks[1]]["host_ms_p50"],
          "host_ms_p99": times[picks[1]]["host_ms_p99"], "runs": times[picks[1]]["runs"],
        })
    return rows


def table(rounds: list[list[dict]]) -> str:
  """Medians over the rounds."""
  lines = [f"{'case':12} {'group':9} {'variant':22} {'tokens':>7} {'padded':>7} {'device ms':>10} "
           f"{'host ms':>9} {'p99':>9} {'texts/s':>10}"]
  for index, row in enumerate(rounds[0]):
    mid = {key: statistics.median(rows[index][key] for rows in rounds)
           for key in ("device_ms_p50", "host_ms_p50", "host_ms_p99")}
    lines.append(
      f"{row['name']:12} {row['group']:9} {row['variant_device']:22} {row['tokens']:>7} "
      f"{row['padded']:>7} {mid['device_ms_p50']:>10.4f} {mid['host_ms_p50']:>9.4f} "
      f"{mid['host_ms_p99']:>9.4f} {1e3 * row['rows'] / mid['device_ms_p50']:>10.0f}")
  return "\n".join(lines)


def parse_shapes(text: str) -> list[tuple[int, int]]:
  return [tuple(map(int, shape.split("x"))) for shape in text.split(",") if shape]


def main() -> None:
  parser = argparse.ArgumentParser(description="time an encoder in PyTorch")
  parser.add_argument("--model", type=Path, required=True, help="model folder")
  parser.add_argument("--device", default="cuda:0")
  parser.add_argument("--precision", choices=["f16", "bf16", "f32"], default="f16")
  parser.add_argument("--shapes", default="", help="ROWSxTOKENS, comma-separated")
  parser.add_argument("--mix", type=Path, help="file with one text per line")
  parser.add_argument("--mix-batch", type=int, default=1024, help="(default %(default)s)")
  parser.add_argument("--kinds", default=",".join(ORDER), help="(default %(default)s)")
  parser.add_argument("--eager-only", action="store_true", help="the same as --kinds eager")
  parser.add_argument("--budget-s", type=float, default=150.0,
                      help="begin no further variant after these seconds (default %(default)s)")
  parser.add_argument("--rounds", type=int, default=3, help="(default %(default)s)")
  parser.add_argument("--serve", action="store_true",
                      help="a round for each line of standard input")
  parser.add_argument("--cache", type=Path, help="folder in which compiled code is kept")
  parser.add_argument("--output", type=Path, help="JSON file with all figures")
  arguments = parser.parse_args()
  if not arguments.shapes and arguments.mix is None:
    parser.error("give --shapes, --mix or both")
  if arguments.cache:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(arguments.cache.resolve())
  kinds = ["eager"] if arguments.eager_only else arguments.kinds.split(",")
  if not set(kinds) <= set(ORDER):
    parser.error(f"--kinds takes {', '.join(ORDER)}")
  if not arguments.device.startswith("cuda") and kinds != ["eager"]:
    parser.error("without a GPU there is only --eager-only")

  # Every variant is compiled once, for its own sizes; a second time would be a mistake in here.
  torch._dynamo.config.error_on_recompile = True
  encoder = Encoder(arguments.model, arguments.device, arguments.precision)
  config = encoder.model.config
  cases = [shape_case(rows, tokens, config.vocab_size, number, encoder.cuda)
           for number, (rows, tokens) in enumerate(parse_shapes(arguments.shapes))]
  if arguments.mix:
    cases += mix_cases(arguments.model, arguments.mix, arguments.mix_batch, config.pad_token_id,
                       encoder.cuda)
  device = torch.cuda.get_device_name(encoder.device) if encoder.cuda else "cpu"
  about = {"peer": f"torch {torch.__version__}, transformers {transformers.__version__}",
           "device": device, "model": arguments.model.name, "precision": arguments.precision}

  with torch.inference_mode():
    bench = Bench(encoder, cases, kinds, arguments.budget_s)
    bench.prepare()
    prepared = {case.name: case.timed for case in cases}
    # Inductor leaves graphs out where it sees no safe way, without an error.
    skips = int(torch._dynamo.utils.counters["inductor"]["cudagraph_skips"])
    if skips:
      say(f"  warning: {skips} compiled functions run without a CUDA graph")
    about |= {"skipped": bench.skipped, "cudagraph_skips": skips, "prepared": prepared}
    if arguments.serve:
      print(json.dumps(about), flush=True)
      for _ in sys.stdin:
        print(json.dumps(bench.round()), flush=True)
      return
    rounds = [bench.round() for _ in range(arguments.rounds)]
  print(table(rounds))
  if arguments.output:
    arguments.output.write_text(json.dumps({**about, "rounds": rounds}, indent=2) + "\n")


if __name__ == "__main__":
  main()
