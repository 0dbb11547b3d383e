#!/usr/bin/env bash
# Everything that is claimed of a GPU, in one run on a machine that has one, the quick and important
# first. Each part has a limit of its own; a part that fails does not stop the others.
#
#   benches/gpu_report.sh PROGRAM MODEL STS.csv OUTPUT [PARTS]
#
# PROGRAM is the built `forebay`, MODEL the folder of all-MiniLM-L6-v2, STS.csv the test split of the
# STS benchmark, OUTPUT a folder, PARTS a regular expression of the parts that are wanted. Needs
# Python with torch, transformers and sentence-transformers.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ $# -lt 4 ] || [ $# -gt 5 ]; then
  echo "usage: $0 PROGRAM MODEL STS.csv OUTPUT [PARTS]" >&2
  exit 64
fi
program=$1 model=$2 sts=$3 output=$4 parts=${5:-.}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$output"
gpu=(--device cuda:0 --model "$model")
failed=()

part() { # name, limit in seconds, command
  local name=$1 limit=$2
  shift 2
  [[ $name =~ $parts ]] || return 0
  printf '\n== %s (%d s so far)\n' "$name" "$SECONDS"
  timeout --kill-after=10 "$limit" "$@" || failed+=("$name")
}

# Lines of the benchmark, and long lines of eight sentences each, repeated until a run takes a while.
python3 - "$sts" "$work" <<'PYTHON'
import csv, sys
lines = [text.replace("\n", " ") for row in csv.reader(open(sys.argv[1], encoding="utf-8"))
         for text in row[:2]]
long = [" ".join(lines[i:i + 8]) for i in range(0, len(lines) - 8, 8)]
for name, texts, times in (("lines", lines, 1), ("short", lines, 36), ("long", long, 60)):
    with open(f"{sys.argv[2]}/{name}.txt", "w", encoding="utf-8") as file:
        file.write("\n".join(texts * times) + "\n")
with open(f"{sys.argv[2]}/one.txt", "w", encoding="utf-8") as file:
    file.write("A dog runs.\n")
PYTHON

spin=(env FOREBAY_LANES__WAIT=spin FOREBAY_LANES__SPIN_US=1000)
part "self-test, quick" 60 "$program" selftest "${gpu[@]}" --quick
part "engine" 60 "$program" bench engine "${gpu[@]}" --precision f16 --mix "$work/lines.txt" \
  --shapes 1x32,8x32,4x128,8x128,16x128,24x128,32x128,64x128,256x128 --csv "$output/engine.csv"
part "engine, BF16" 60 "$program" bench engine "${gpu[@]}" --precision bf16 --shapes 1x32,256x128
part "engine, cuBLASLt" 60 env FOREBAY_CUDA__GEMM=cublaslt "$program" bench engine "${gpu[@]}" \
  --precision f16 --shapes 1x32,8x128,32x128,256x128
part "pipeline, lanes that sleep" 60 "$program" bench pipeline "${gpu[@]}" --precision f16 \
  --input "$work/lines.txt" --rate 5000 --seconds 5
part "pipeline, bulk and open loop" 60 "${spin[@]}" "$program" bench pipeline "${gpu[@]}" \
  --precision f16 --input "$work/short.txt" --rounds 7 --rate 5000 --seconds 5
part "pipeline, one text" 40 "${spin[@]}" "$program" bench pipeline "${gpu[@]}" --precision f16 \
  --input "$work/one.txt" --single-runs 5000
part "pipeline, long texts" 40 "${spin[@]}" "$program" bench pipeline "${gpu[@]}" --precision f16 \
  --input "$work/long.txt" --rounds 3 --single-runs 100
part "timeline, long texts" 40 "${spin[@]}" "$program" bench pipeline "${gpu[@]}" --precision f16 \
  --input "$work/long.txt" --rounds 1 --single-runs 50 --trace "$output/timeline.json"
for precision in f16 bf16; do
  part "STS benchmark, $precision" 40 "$program" eval sts "${gpu[@]}" --precision "$precision" "$sts"
done
part "self-test, full" 120 "$program" selftest "${gpu[@]}"
part "embedded PTX" 60 env FOREBAY_CUDA__KERNELS=ptx "$program" selftest --quick "${gpu[@]}"
part "cuBLASLt" 60 env FOREBAY_CUDA__GEMM=cublaslt "$program" selftest --quick "${gpu[@]}"
bench=(python3 benches/gpu.py --forebay "$program" --model "$model" --work "$work/gpu"
  --output "$output" --rounds 2 "--peer-options=--budget-s 40 --kinds reduce-overhead")
part "PyTorch, minilm" 150 "${bench[@]}" --only minilm
part "accuracy of other models" 240 "${bench[@]}" --only accuracy --sts "$sts"
part "PyTorch, bert-base" 150 "${bench[@]}" --only base
part "PyTorch, bge-large" 200 "${bench[@]}" --only large
part "PyTorch, mix" 150 "${bench[@]}" --only mix --mix "$sts"
for tool in memcheck racecheck; do
  part "compute-sanitizer, $tool" 120 compute-sanitizer --error-exitcode 1 --tool "$tool" \
    "$program" selftest --quick --device cuda:0 --precision f16
done

printf '\n%d s in all' "$SECONDS"
if [ ${#failed[@]} -gt 0 ]; then
  printf '; failed:'
  printf ' [%s]' "${failed[@]}"
  printf '\n'
  exit 1
fi
printf '; every part succeeded\n'
