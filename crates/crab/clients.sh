#!/bin/sh
# Clients that nobody here wrote get right answers over HTTPS: curl, Python's requests, and Chromium. Of the last two it takes what
# there is, and says what it left out. Needs curl and openssl.
#   crates/crab/clients.sh [CRAB]        PYTHON names a python3 that has requests, CHROMIUM the browser
set -eu
crab=${1:-$(dirname "$0")/target/release/crab} python=${PYTHON:-python3} chromium=${CHROMIUM:-chromium}
dir=$(mktemp -d)
pid=
trap 'kill $pid 2>/dev/null || true; rm -rf "$dir"' EXIT
die() { echo "clients.sh: $*" >&2; exit 1; }
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/key.pem" -out "$dir/cert.pem" -days 2 \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost 2>/dev/null
"$crab" --listen 127.0.0.1:0 --cert "$dir/cert.pem" --key "$dir/key.pem" --body-max 2MiB -- tr a-z A-Z 2>"$dir/log" &
pid=$!
for _ in $(seq 600); do grep -q "on port" "$dir/log" && break; sleep 0.1; done
url=https://localhost:$(sed -n 's/.*on port //p' "$dir/log")
head -c 1500000 /dev/zero | tr '\0' x >"$dir/large"
head -c 3000000 /dev/zero >"$dir/too-large"

# expect WANTED WORDS-OF-CURL...: the body, where it is one short line, and the status.
expect() {
    wanted=$1; shift
    got=$(curl -s --cacert "$dir/cert.pem" -w ' %{http_code}' "$@" | tr -d '\n') || true
    case $got in $wanted) ;; *) die "curl $*: $got, not $wanted" ;; esac
}
expect 'HELLO 200' -d hello "$url/"
expect 'HELLO 200' --http2 -d hello "$url/any/path"
expect 'HELLO 200' --tls-max 1.2 -d hello "$url/"
expect ' 000' --tls-max 1.1 -d hello "$url/"
expect 'A B 200' "$url/?a%20b"
expect 'ok 200' "$url/health"
expect '* 405' -X PUT -d x "$url/"
expect '* 405' -X DELETE "$url/"
expect '* 400' "$url/nothing"
expect '* 400' -H 'Content-Length: 5, 5' -d hello "$url/"
expect '* 411' -X POST -H 'Content-Length:' "$url/"
expect '* 413' --data-binary "@$dir/too-large" "$url/"
expect '* 400' -d x "http${url#https}/"
for how in "Content-Type: text/plain" "Transfer-Encoding: chunked"; do
    curl -s --cacert "$dir/cert.pem" -H "$how" --data-binary "@$dir/large" "$url/" | tr X x | cmp - "$dir/large" || die "curl, $how: another body"
done
echo "curl: right answers"

if "$python" -c 'import requests' 2>/dev/null; then
    "$python" - "$url/" "$dir/cert.pem" <<'PYTHON'
import sys, requests
url, session = sys.argv[1], requests.Session()
session.trust_env, session.verify = False, sys.argv[2]
assert session.post(url, data="grüße".encode()).text == "GRüßE"
assert [session.post(url, data=f"x{i}").text for i in range(5)] == [f"X{i}" for i in range(5)]
assert session.get(url, params="a b&c").text == "A B&C"
assert session.post(url, data=(part for part in [b"ab", b"cd"])).text == "ABCD"
assert session.post(url, data=b"x" * 1_500_000).content == b"X" * 1_500_000
assert [session.put(url, data="x").status_code, session.get(url).status_code] == [405, 400]
assert session.post(url, data=b"x" * 3_000_000).status_code == 413
PYTHON
    echo "requests: right answers"
else
    echo "LEFT OUT: requests, as $python has no such module"
fi

if command -v "$chromium" >/dev/null; then
    browse() { timeout 300 "$chromium" --headless --no-sandbox --disable-gpu --user-data-dir="$dir/profile" --ignore-certificate-errors --dump-dom "$url/$1" 2>/dev/null; }
    browse '?hello+browser' | grep -q '>HELLO BROWSER<' || die "Chromium: another page"
    browse health | grep -q '>ok' || die "Chromium: another page for health"
    echo "Chromium: right answers"
else
    echo "LEFT OUT: $chromium, as it is not there"
fi
