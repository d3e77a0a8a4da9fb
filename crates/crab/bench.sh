#!/bin/sh
# Overload, measured: crab and a Python http.server around the same program, flooded by wrk. Needs wrk, curl, openssl, python3.
#   crates/crab/bench.sh [SECONDS [CONNECTIONS]]        in the root; crab is built in release, or CRAB names it
# The program takes 20 ms. First the rate of one client that waits for each answer, then that of the flood: the goodput.
set -eu
seconds=${1:-60} connections=${2:-1000}
crab=${CRAB:-$(dirname "$0")/target/release/crab}
dir=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null || true; rm -rf "$dir"' EXIT
ulimit -n 8192
program='sleep 0.02; cat'
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/key.pem" -out "$dir/cert.pem" -days 2 \
    -subj /CN=localhost 2>/dev/null
cat >"$dir/post.lua" <<'LUA'
wrk.method, wrk.body = "POST", "hello"
LUA
cat >"$dir/server.py" <<'PYTHON'
import http.server, socketserver, ssl, subprocess, sys
port, threads, directory, program = int(sys.argv[1]), sys.argv[2] == "threads", sys.argv[3], sys.argv[4]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        output = subprocess.run(["sh", "-c", program], input=body, capture_output=True).stdout
        self.send_response(200)
        self.send_header("Content-Length", str(len(output)))
        self.end_headers()
        self.wfile.write(output)
server = (http.server.ThreadingHTTPServer if threads else http.server.HTTPServer)(("127.0.0.1", port), Handler)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(directory + "/cert.pem", directory + "/key.pem")
server.socket = tls.wrap_socket(server.socket, server_side=True)
server.serve_forever()
PYTHON

field() { awk -v name="$2:" '$1 == name { print $2 }' "/proc/$1/status"; }
cpu() { awk '{ print $14 * 10, $15 * 10 }' "/proc/$1/stat"; }
answered() { wrk -t1 -c"$2" -d"$3s" --timeout 60s -s "$dir/post.lua" "https://127.0.0.1:$1/" >"$dir/wrk"; awk '/requests in/ { print $1 }' "$dir/wrk"; }
listens() { for _ in $(seq 100); do curl -sk -m 5 -d x "https://127.0.0.1:$1/" >/dev/null && return; sleep 0.1; done; return 1; }

# measure NAME PORT PID LOG
measure() {
    listens "$2"
    idle=$(field "$3" VmRSS) own=$(field "$3" RssAnon)
    alone=$(answered "$2" 1 10)
    before=$(cpu "$3")
    (sleep $((seconds / 3)); field "$3" VmRSS >"$dir/third") & third=$!
    flood=$(answered "$2" "$connections" "$seconds")
    after=$(cpu "$3") end=$(field "$3" VmRSS)
    next=$(curl -sk -m 120 -o /dev/null -w '%{http_code} after %{time_total} s' -d x "https://127.0.0.1:$2/" || true)
    wait $third
    echo "$before $after $alone $flood" | awk -v name="$1" -v s="$seconds" -v idle="$idle" -v own="$own" -v third="$(cat "$dir/third")" \
        -v end="$end" -v next_="$next" -v log_="$(wc -l <"$4")" '{
        printf "| %s | %d (%d) | %.1f | %.1f | %.0f%% | %d → %d | %d, %d | %d | %s |\n", name, idle, own, $5 / 10, $6 / s,
            100 * $6 / s / ($5 / 10), third, end, $3 - $1, $4 - $2, log_, next_ }'
}

echo "| $connections connections, $seconds s | idle RSS kB (own) | alone /s | flooded /s | goodput | RSS at a third → at the end | CPU ms user, system | log lines | next request |"
echo "|---|---|---|---|---|---|---|---|---|"
for queue in 500 16; do
    env MALLOC_ARENA_MAX=1 "$crab" --listen 127.0.0.1:1844$((queue % 7)) --cert "$dir/cert.pem" --key "$dir/key.pem" --queue $queue -- sh -c "$program" 2>"$dir/log" &
    supervisor=$! pids="$pids $!"
    sleep 1
    measure "crab --queue $queue" 1844$((queue % 7)) "$(pgrep -P $supervisor)" "$dir/log"
    kill $supervisor
done
for kind in serial threads; do
    port=1845$(printf %s $kind | wc -c)
    python3 "$dir/server.py" "$port" $kind "$dir" "$program" 2>"$dir/log" &
    server=$! pids="$pids $!"
    measure "Python http.server, $kind" "$port" $server "$dir/log"
    kill $server
done
