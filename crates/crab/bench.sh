#!/bin/sh
# Overload, measured: crab, nginx with limit_conn before fcgiwrap, and a Python http.server, all around the same program over
# HTTPS on loopback, flooded by wrk. Needs wrk, curl, openssl and python3; without nginx and fcgiwrap that row is left out.
#   crates/crab/bench.sh [SECONDS [CONNECTIONS]]        in the root; crab is built in release, or CRAB names it
# The program takes 20 ms. The rate of one client that waits for each answer, for 10 s before and 10 s after, against that of the
# flood: the goodput, of which only answers with 200 count. Memory is that of all processes of a server, without the program: RSS, and PSS in brackets.
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
printf '#!/bin/sh\necho Content-Type: text/plain\necho\n%s\n' "$program" >"$dir/cgi"
chmod +x "$dir/cgi"
cat >"$dir/nginx.conf" <<NGINX
user root;
daemon off;
pid $dir/nginx.pid;
worker_processes 1;
error_log $dir/log;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path $dir/body; fastcgi_temp_path $dir/fcgi; proxy_temp_path $dir/proxy; uwsgi_temp_path $dir/uwsgi; scgi_temp_path $dir/scgi;
    limit_conn_zone \$server_addr zone=all:1m;
    server {
        listen 127.0.0.1:18461 ssl;
        ssl_certificate $dir/cert.pem;
        ssl_certificate_key $dir/key.pem;
        limit_conn all 16;
        location / {
            fastcgi_pass unix:$dir/socket;
            fastcgi_param REQUEST_METHOD \$request_method;
            fastcgi_param CONTENT_LENGTH \$content_length;
            fastcgi_param SCRIPT_FILENAME $dir/cgi;
        }
    }
}
NGINX

# The processes of a server, of which some come and go, without the program. The server part of crab is called exe.
family() {
    for main in $1; do
        echo "$main"
        for child in $(pgrep -P "$main"); do
            case $(cat "/proc/$child/comm" 2>/dev/null) in exe | nginx | fcgiwrap) echo "$child" ;; esac
        done
    done
}
memory() { family "$1" | while read -r pid; do cat "/proc/$pid/smaps_rollup" 2>/dev/null || true; done | awk '/^Rss/ { r += $2 } /^Pss:/ { p += $2 } END { print r " (" p ")" }'; }
# Ticks of user and system, those of servers that ended before not counted.
cpu() { family "$1" | while read -r pid; do cat "/proc/$pid/stat" 2>/dev/null || true; done | awk '{ u += $14; s += $15 } END { print u * 10, s * 10 }'; }
answered() {
    wrk -t1 -c"$2" -d"$3s" --timeout 60s -s "$dir/post.lua" "https://127.0.0.1:$1/" >"$dir/wrk"
    awk '/requests in/ { all = $1 } /Non-2xx/ { wrong = $NF } END { print all - wrong }' "$dir/wrk"
}
listens() { for _ in $(seq 100); do curl -skf -m 5 -d x "https://127.0.0.1:$1/" >/dev/null && return; sleep 0.1; done; return 1; }

# measure NAME PORT PIDS LOG
measure() {
    listens "$2"
    sleep 13
    idle=$(memory "$3")
    alone=$(answered "$2" 1 10)
    before=$(cpu "$3")
    (sleep $((seconds / 3)); memory "$3" >"$dir/third") & third=$!
    (sleep $((seconds - 1)); memory "$3" >"$dir/end") & end=$!
    flood=$(answered "$2" "$connections" "$seconds")
    after=$(cpu "$3")
    next=$(curl -sk -m 120 -o /dev/null -w '%{http_code} after %{time_total} s' -d x "https://127.0.0.1:$2/" || true)
    wait $third $end
    # The machine may have had other work at one of the two times.
    alone=$((alone + $(answered "$2" 1 10)))
    echo "$before $after $alone $flood" | awk -v name="$1" -v s="$seconds" -v idle="$idle" -v third="$(cat "$dir/third")" \
        -v end="$(cat "$dir/end")" -v next_="$next" -v log_="$(wc -l <"$4")" '{
        printf "| %s | %s | %.1f | %.1f | %.0f%% | %s → %s | %d, %d | %d | %s |\n", name, idle, $5 / 20, $6 / s,
            100 * $6 / s / ($5 / 20), third, end, $3 - $1, $4 - $2, log_, next_ }'
}

# What crab does while it is full: time on a processor of all threads of the server, which the kernel counts in nanoseconds.
busy() { cat /proc/"$1"/task/*/schedstat | awk '{ sum += $1 } END { print sum / 1e6 }'; }
while_full() {
    "$crab" --listen 127.0.0.1:18470 --cert "$dir/cert.pem" --key "$dir/key.pem" --queue 16 --timeout 10m -- sleep 1000 2>"$dir/log" &
    supervisor=$! pids="$pids $!"
    for _ in $(seq 100); do curl -skf https://127.0.0.1:18470/health >/dev/null && break; sleep 0.1; done
    wrk -t1 -c"$connections" -d$((seconds + 10))s --timeout 600s -s "$dir/post.lua" https://127.0.0.1:18470/ >/dev/null & load=$!
    sleep 7
    server=$(pgrep -P $supervisor)
    before="$(busy "$server") $(cpu "$server")"
    sleep "$seconds"
    echo "$before $(busy "$server") $(cpu "$server")" | awk -v s="$seconds" -v m="$(memory "$supervisor")" -v c="$connections" '{
        printf "full for %d s under %d connections: %.3f ms on a processor, user %d ms, system %d ms; memory %s kB\n", s, c, $4 - $1, $5 - $2, $6 - $3, m }'
    kill $supervisor
    wait $load
}

echo "| $connections connections, $seconds s | idle kB | alone /s | flooded /s | goodput | kB at a third → at the end | CPU ms user, system | log lines | next request |"
echo "|---|---|---|---|---|---|---|---|---|"
for queue in 500 16; do
    "$crab" --listen 127.0.0.1:1844$((queue % 7)) --cert "$dir/cert.pem" --key "$dir/key.pem" --queue $queue -- sh -c "$program" 2>"$dir/log" &
    supervisor=$! pids="$pids $!"
    measure "crab --queue $queue" 1844$((queue % 7)) $supervisor "$dir/log"
    kill $supervisor
done
if command -v nginx >/dev/null && command -v fcgiwrap >/dev/null; then
    fcgiwrap -c 1 -s "unix:$dir/socket" 2>>"$dir/log" & fcgi=$!
    : >"$dir/log"
    nginx -e "$dir/log" -c "$dir/nginx.conf" & nginx=$!
    pids="$pids $fcgi $nginx"
    measure "nginx limit_conn 16, fcgiwrap -c 1" 18461 "$nginx $fcgi" "$dir/log"
    kill $nginx $fcgi
fi
for kind in serial threads; do
    port=1845$(printf %s $kind | wc -c)
    python3 "$dir/server.py" "$port" $kind "$dir" "$program" 2>"$dir/log" &
    server=$! pids="$pids $!"
    measure "Python http.server, $kind" "$port" $server "$dir/log"
    kill $server
done
echo
while_full
