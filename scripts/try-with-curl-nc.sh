#!/usr/bin/env bash
# Drives the program gate-host with curl and nc, as a person would: accepted, rejected, asked about.
# Usage: scripts/try-with-curl-nc.sh path/to/gate-host
# A tool that is not installed is skipped and named.
set -euo pipefail

example=${1:?usage: $0 path/to/gate-host}
work=$(mktemp -d)
service=
cleanup() {
  if [[ -n $service ]]; then
    kill "$service" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap cleanup EXIT
trap '' PIPE

# The input and output of a client, and an input that stays open and says nothing.
mkfifo "$work/quiet" "$work/to" "$work/from"
exec {quiet}<>"$work/quiet"

fail() {
  printf 'FAILED: %s\n' "$*" >&2
  printf -- '--- the log:\n' >&2
  cat "$work/log" >&2 || true
  exit 1
}

# Waits up to ten seconds until the log has a line that matches.
await() {
  local tries
  for ((tries = 0; tries < 200; tries++)); do
    if grep -qE "$1" "$work/log"; then
      return 0
    fi
    sleep 0.05
  done
  fail "no line in the log matches $1"
}

# Starts the service on a free port; sets `service` and `port`.
start() {
  : >"$work/log"
  "$example" --listen 127.0.0.1:0 --log json --accept 127.0.0.2 --reject 127.0.0.3 --ask 127.0.0.4 \
    --default reject "$@" >>"$work/log" &
  service=$!
  await '"event":"loaded"'
  port=$(sed -n 's/.*"loaded","local":"127\.0\.0\.1:\([0-9]*\)".*/\1/p' "$work/log")
}

# Unloads the service and checks its balance.
stop() {
  kill -TERM "$service"
  wait "$service" || fail "the service ended with status $?"
  service=
  grep -qF '{"event":"unloaded","violations":0,"leaks":0}' "$work/log" || fail 'no clean unload in the log'
}

# `talk TOOL ADDRESS`: a line goes there and comes back. Fails if the connection ends first.
talk() {
  local client line= status=0 pid to from
  case $1 in
    # What comes back is the request; for curl that is the answer of a very old web server.
    curl) client=(curl --silent --no-buffer --http0.9 --max-time 30 --interface "$2" "http://127.0.0.1:$port/hello-from-$2") ;;
    nc) client=(nc -s "$2" -w 30 127.0.0.1 "$port") ;;
  esac
  "${client[@]}" <"$work/to" >"$work/from" 2>/dev/null &
  pid=$!
  # In the order in which the client's shell opens them.
  exec {to}>"$work/to" {from}<"$work/from"
  printf 'hello-from-%s\n' "$2" 2>/dev/null >&"$to" || true
  IFS= read -r -t 10 line <&"$from" || status=1
  exec {to}>&- {from}<&-
  kill "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  ((status == 0)) && [[ $line == *"hello-from-$2"* ]]
}

# `silence TOOL ADDRESS`: connects, says nothing, and waits. Sets `client`.
silence() {
  case $1 in
    curl) curl --silent --max-time 30 --interface "$2" "telnet://127.0.0.1:$port" <&"$quiet" >/dev/null 2>&1 & ;;
    nc) nc -s "$2" -w 30 127.0.0.1 "$port" <&"$quiet" >/dev/null 2>&1 & ;;
  esac
  client=$!
}

drive() {
  local tool=$1 by=$2 client
  printf '%s, connections taken by %s\n' "$tool" "$by"

  start --accept-by "$by" --verdict-after 200
  talk "$tool" 127.0.0.2 || fail "$tool was not answered where it is accepted"
  printf '  accepted\n'
  if talk "$tool" 127.0.0.3; then fail "$tool was answered where it is rejected"; fi
  await '"remote":"127\.0\.0\.3:[0-9]+","action":"reject"'
  printf '  rejected\n'
  talk "$tool" 127.0.0.4 || fail "$tool was not answered where it is asked about"
  await '"event":"verdict","id":"[^"]+","action":"accept"'
  printf '  asked about, then accepted\n'
  stop

  start --accept-by "$by" --verdict-after 600000
  silence "$tool" 127.0.0.4
  await '"action":"pend"'
  kill -KILL "$client"
  wait "$client" 2>/dev/null || true
  await '"event":"abort"'
  if grep -q '"event":"accepted"' "$work/log"; then fail 'a request that was given up became a connection'; fi
  printf '  asked about, then given up\n'
  stop
}

for tool in curl nc; do
  if ! command -v "$tool" >/dev/null; then
    printf '%s is not installed: skipped\n' "$tool"
    continue
  fi
  for by in irp event; do
    drive "$tool" "$by"
  done
done
