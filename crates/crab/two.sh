#!/bin/sh
# A Sheaf job over two crabs, one of which is killed in the middle: every row is answered, once, and right.
#   crates/crab/two.sh SHEAF CRAB [ROWS]        the two binaries; `cargo xtask crab` runs it
set -eu
sheaf=$1 crab=$2 rows=${3:-200}
dir=$(mktemp -d) data=$(dirname "$0")/tests/data
pids=
trap 'kill -9 $pids 2>/dev/null || true; rm -rf "$dir"' EXIT
die() { echo "two.sh: $*" >&2; cat "$dir"/*.log >&2; exit 1; }
# until WHAT COMMAND...: waits, for a minute at most.
until_so() { what=$1; shift; for _ in $(seq 600); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; die "never: $what"; }

port() { sed -n 's/.*on port //p' "$dir/$1.log"; }
start_crab() {
    "$crab" --listen 127.0.0.1:0 --cert "$data/cert.pem" --key "$data/key.pem" -- sh -c 'read -r row; sleep 0.05; echo "answer to $row"' 2>"$dir/$1.log" &
    pids="$pids $!"
    until_so "crab $1 listens" grep -q "on port" "$dir/$1.log"
}
start_worker() {
    "$sheaf" worker --join "127.0.0.1:$router" --data "$dir/worker-$1" --name "$1" --service answers --batch 4 --backend-ca "$data/cert.pem" \
        --http "https://localhost:$(port "$1")/" 2>"$dir/worker-$1.log" &
    pids="$pids $!"
}
start_crab one
victim=$!
start_crab two
"$sheaf" up --listen 127.0.0.1:0 --data "$dir/journal" >"$dir/up.out" 2>"$dir/up.log" &
pids="$pids $!"
until_so "the router listens" grep -qE '127\.0\.0\.1:[1-9]' "$dir/up.log" "$dir/up.out"
router=$(sed -n 's/.*127\.0\.0\.1:\([1-9][0-9]*\).*/\1/p' "$dir/up.log" "$dir/up.out" | head -n 1)
start_worker one
start_worker two

seq "$rows" >"$dir/rows.txt"
"$sheaf" run --join "127.0.0.1:$router" --in "$dir/rows.txt" --out "$dir/out.jsonl" --service answers 2>"$dir/run.log" &
job=$!
pids="$pids $job"
until_so "a quarter of the rows is there" sh -c "[ \$(wc -l <'$dir/out.jsonl') -ge $((rows / 4)) ]"
[ "$(wc -l <"$dir/out.jsonl")" -lt "$rows" ] || die "it was done before anything could be killed"
kill -9 $victim
wait $job || die "the job ended with $?"
answers=$(sed -n 's/.*"output": *"answer to \([0-9]*\)\\n".*/\1/p' "$dir/out.jsonl" | sort -n)
[ "$answers" = "$(seq "$rows")" ] && [ "$(wc -l <"$dir/out.jsonl")" -eq "$rows" ] || die "not every row once and right"
echo "$rows rows over two crabs, one killed in the middle: every row once"
