#!/usr/bin/env bash
# Everything that is claimed of losing a GPU, in one run on a machine with two: the rate of two
# against one, each fault on one GPU, on both at once and alternating, starts with GPUs missing, and
# the histories of the clients judged by other code. Each part has a limit of its own; a part that
# fails does not stop the others.
#
#   benches/ladder_report.sh PROGRAM XTASK MODEL TEXTS OUTPUT [PARTS]
#
# PROGRAM is the built `forebay`, XTASK the built `xtask`, MODEL the folder of all-MiniLM-L6-v2, TEXTS
# a file with one text per line, OUTPUT a folder, PARTS a regular expression of the parts that are
# wanted.
set -uo pipefail

if [ $# -lt 5 ] || [ $# -gt 6 ]; then
  echo "usage: $0 PROGRAM XTASK MODEL TEXTS OUTPUT [PARTS]" >&2
  exit 64
fi
program=$1 xtask=$2 model=$3 texts=$4 output=$5 parts=${6:-.}
mkdir -p "$output"
failed=()

part() { # name, limit in seconds, command
  local name=$1 limit=$2
  shift 2
  [[ $name =~ $parts ]] || return 0
  printf '\n== %s (%d s so far)\n' "$name" "$SECONDS"
  timeout --kill-after=10 "$limit" "$@" || failed+=("$name")
}

# Faults one after the other, and what the clients saw, judged apart. Restarts are not limited here:
# a drill brings more of them about in minutes than a year does. One GPU cannot do 60 % of what two
# can: what it does not get to within 25 ms is refused, so that nothing accepted waits for long. Lanes
# spin, as the texts of a worker that is gone run one by one.
drill() { # name, devices, arguments of the drill
  local name=$1 devices=$2
  shift 2
  env FOREBAY_SUPERVISOR__RESTARTS_MAX=1000 FOREBAY_SUPERVISOR__DWELL_MAX_MS=1000 \
    FOREBAY_ADMISSION__INTERACTIVE_WAIT_MS_MAX=25 \
    FOREBAY_LANES__WAIT=spin FOREBAY_LANES__SPIN_US=1000 \
    FOREBAY_DEVICES__RUNGS="$devices" FOREBAY_EVENTS__FOLDER="$output/$name.events" \
    "$program" drill --model "$model" --input "$texts" --precision f16 \
    --history "$output/$name.csv" --answers "$output/$name.answers" "$@"
  local ended=$?
  "$xtask" check-history "$output/$name.csv" --answers "$output/$name.answers" || ended=1
  rm -f "$output/$name.csv"
  return "$ended"
}
export -f drill
export program xtask model texts output

head -n 200 "$texts" > "$output/few.txt"
one=cuda:0 two=cuda:0,cuda:1
faults=(--fault kill --fault stop --fault trap --fault illegal_address --fault endless_kernel
  --fault device_out_of_memory --fault flip_output_bit)
for devices in cuda:0 cuda:1 cuda:0,cuda:1; do
  part "bulk rate of $devices" 60 "$program" bench pipeline --model "$model" --precision f16 \
    --device "$devices" --input "$texts" --rounds 5
done
part "drill, one of two" 240 bash -c 'drill one "$0" "$@"' "$two" --on cuda:0 "${faults[@]}" \
  --load 0.6 --calm 5s --pause 3s
part "drill, both at once" 240 bash -c 'drill both "$0" "$@"' "$two" --on all "${faults[@]}" \
  --load 0.6 --deadline 1s --calm 5s --pause 3s
part "drill, alternating" 400 bash -c 'drill alternating "$0" "$@"' "$two" --on alternating \
  "${faults[@]}" --load 0.6 --for 5m --calm 5s --pause 3s
part "drill, flipped weight" 120 bash -c 'drill weight "$0" "$@"' "$two" --on cuda:1 \
  --fault flip_weight_bit --load 0.6 --calm 5s
part "drill, slow" 120 bash -c 'drill slow "$0" "$@"' "$two" --on cuda:0 --fault slow=10 --load 0.6 \
  --calm 5s
part "start, one GPU missing" 60 env FOREBAY_DEVICES__RUNGS=cuda:0,cuda:7 \
  "$program" embed --model "$model" --input "$texts" --output "$output/missing.npy"
part "start, both GPUs missing" 60 env FOREBAY_DEVICES__RUNGS=cuda:6,cuda:7 \
  "$program" embed --model "$model" --input "$output/few.txt" --output "$output/both-missing.npy"
part "one GPU and the CPU" 180 bash -c 'drill single "$0" "$@"' "$one" --on cuda:0 --fault kill \
  --fault trap --load 0.05 --deadline 500ms --calm 5s
for name in one both alternating weight; do
  [ -d "$output/$name.events" ] && "$program" events --folder "$output/$name.events" --last 2000
done

printf '\n%d s in all' "$SECONDS"
if [ ${#failed[@]} -gt 0 ]; then
  printf "; failed:"
  printf " [%s]" "${failed[@]}"
  printf "\n"
  exit 1
fi
printf "; every part succeeded\n"
