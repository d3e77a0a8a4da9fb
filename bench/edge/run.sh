#!/bin/sh
# Open-loop overload of the front door, measured from outside by hey (Debian: apt install hey slowhttptest).
# usage: [SLOW=0] bench/edge/run.sh path/to/sheaf [SECONDS] [BATCH]
# The stub takes 10 ms for a row, BATCH of them at once: capacity is BATCH * 100 calls a second. hey sends at a fixed rate on
# many connections and does not wait with the next call for the last answer, but for each connection's own.
set -eu
sheaf=$(realpath "$1") seconds=${2:-20} batch=${3:-2}
here=$(realpath "$(dirname "$0")")
dir=$(mktemp -d)
cd "$dir"
listen=127.0.0.1:4497 http=127.0.0.1:4498
"$sheaf" up --data router --listen $listen --http=$http 2> router.log & router=$!
"$sheaf" worker --join $listen --data worker --service stub --serve --batch "$batch" -- python3 "$here/stub.py" 2> worker.log & worker=$!
trap 'kill $worker $router; wait; rm -rf "$dir"' EXIT
until curl -sf http://$http/v1/models/stub > models; do sleep 0.2; done
echo '{"service": "stub", "body": "row"}' > body

# connections, calls a second on each: one line of figures.
load() {
  name=$1 connections=$2 rate=$3
  before=$(awk '{print $14 + $15}' /proc/$router/stat)
  hey -z "${seconds}s" -c "$connections" -q "$rate" -m POST -T application/json -D body -o csv http://$http/v1/tasks > $name.csv
  after=$(awk '{print $14 + $15}' /proc/$router/stat)
  rss=$(awk '/VmRSS/ {print $2}' /proc/$router/status)
  awk -F, 'NR > 1 && $7 == 200 {print $1 * 1000}' $name.csv | sort -n > $name.ok
  awk -F, 'NR > 1 && $7 == 429 {n++} END {print n + 0}' $name.csv > $name.refused
  awk -F, 'NR > 1 && $7 != 200 && $7 != 429 {n++} END {print n + 0}' $name.csv > $name.other
  awk -v name="$name" -v s="$seconds" -v refused="$(cat $name.refused)" -v other="$(cat $name.other)" -v rss="$rss" -v cpu="$((after - before))" \
    '{t[NR] = $1} END {
      p50 = NR ? t[int(NR * 0.5) + 1] : 0; p99 = NR ? t[int(NR * 0.99) + 1] : 0; if (NR && p99 == "") p99 = t[NR]
      printf "| %s | %.0f | %.0f | %d | %.1f | %.1f | %.1f | %.2f |\n", name, (NR + refused + other) / s, NR / s, other, p50, p99, rss / 1024, cpu / 100 / s
    }' $name.ok
}

echo "| load | offered /s | answered /s | other | p50 ms | p99 ms | RSS MB | processors |"
echo "|---|---|---|---|---|---|---|---|"
load warm "$batch" 100 > warm
load 0.5x $batch 50
load 0.9x $((batch * 9)) 10
load 1x-closed $((batch * 4)) 1000
load 2x $((batch * 10)) 20
load 10x $((batch * 25)) 40
load 100x $((batch * 100)) 100
echo "log lines of the router: $(wc -l < router.log)"

# Slow clients beside a load of 0.5.
if [ "${SLOW:-1}" = 1 ] && command -v slowhttptest > /dev/null; then
  for kind in -H -B -X; do
    slowhttptest -c 4000 $kind -i 5 -r 1000 -l "$seconds" -u http://$http/v1/models -x 32 -p 3 > slow.log 2>&1 & slow=$!
    sleep 5
    load "slow$kind" $((batch * 5)) 10
    wait $slow
    grep -E 'service available|exit status' slow.log | sed 's/\x1b\[[0-9;]*m//g' || true
  done
fi
