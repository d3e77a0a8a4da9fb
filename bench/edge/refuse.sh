#!/bin/sh
# What a refusal costs the router, measured from outside by wrk (Debian: apt install wrk curl) on connections that are kept.
# usage: bench/edge/refuse.sh path/to/sheaf [SECONDS]
# Four programs sleep and their calls wait, so the light is yellow, and every further call gets a 429. Processor time is the
# kernel's account of the process; a third of a second of it is too little to trust.
set -eu
sheaf=$(realpath "$1") seconds=${2:-8}
dir=$(mktemp -d)
cd "$dir"
listen=127.0.0.1:4597 http=127.0.0.1:4598
"$sheaf" up --data router --listen $listen --http=$http 2> router.log & router=$!
"$sheaf" worker --join $listen --data worker --service stub --batch 4 --stdin -- sleep 3600 2> worker.log & worker=$!
held=
trap 'kill $held $worker $router 2> kill.log || true; wait; rm -rf "$dir"' EXIT
until curl -sf http://$http/v1/models/stub > models; do sleep 0.2; done
for n in 1 2 3 4 5 6 7 8 9 10; do
  curl -s http://$http/v1/tasks -d "{\"service\": \"stub\", \"body\": \"held $n\"}" > held.$n & held="$held $!"
done
until [ "$(curl -s -o refused -w '%{http_code}' -m 1 http://$http/v1/tasks -d '{"service": "stub", "body": "row"}')" = 429 ]; do :; done
cat > post.lua <<'END'
wrk.method = "POST"
wrk.body = '{"service": "stub", "body": "row"}'
wrk.headers["Content-Type"] = "application/json"
END

ticks() { awk '{print $14, $15}' /proc/$router/stat; }
wrk -t1 -c32 -d1 -s post.lua http://$http/v1/tasks > warm
before=$(ticks)
wrk -t1 -c32 -d"$seconds" -s post.lua http://$http/v1/tasks > wrk
after=$(ticks)
[ "$(awk '/requests in/ {print $1}' wrk)" = "$(awk '/Non-2xx/ {print $NF}' wrk)" ] || echo "not all were refused"
echo "$before $after $(awk '/requests in/ {print $1}' wrk) $seconds" | awk -v hz="$(getconf CLK_TCK)" '{
  us = 1e6 / hz / $5
  printf "%d refusals a second: user %.2f us, system %.2f us of processor time each\n", $5 / $6, ($3 - $1) * us, ($4 - $2) * us }'
