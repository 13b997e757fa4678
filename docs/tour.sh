#!/usr/bin/env bash
# Runs the tour of README.md: every fenced block that begins with "```sh tour", as it stands, in order, in one shell.
# A block with background=NAME is started in the background, and the tour goes on when what it starts answers.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -e data ] || [ -e keys/dev ]; then
    echo "tour: ./data or ./keys/dev exists; move it away, the tour begins with a first start" >&2
    exit 1
fi

logs=$(mktemp -d)
script="$logs/tour.sh"

cleanup() {
    status=$?
    pkill -9 -x mcp_server || true
    pkill -x strongroomd || true
    if [ "$status" -ne 0 ]; then tail -n 40 "$logs"/*.log || true; fi
    rm -rf data keys/dev trip.txt "$logs"
    exit "$status"
}
trap cleanup EXIT

# Waits at most two minutes (the first start compiles) until what a background block started answers.
answers() {
    local name=$1 log=$2
    for _ in $(seq 1 1200); do
        case $name in
            server) if grep -q "Stop with Ctrl-C" "$log"; then return; fi ;;
            desk) if curl_free 8808; then return; fi ;;
        esac
        read -r -t 0.1 <> <(:) || true
    done
    echo "tour: $name does not answer" >&2
    return 1
}

# Whether somebody listens on a port of loopback, without needing another program.
curl_free() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

awk -v logs="$logs" '
    /^```sh tour/ {
        block = 1; background = ""; commands = ""; count++
        if (match($0, /background=[a-z]+/)) background = substr($0, RSTART + 11, RLENGTH - 11)
        next
    }
    /^```$/ && block {
        if (background == "") {
            printf "%s", commands
        } else {
            log_file = logs "/" background "-" count ".log"
            printf "echo \"+ (%s in the background)\"\n(\n%s) >%s 2>&1 </dev/null &\nanswers %s %s\n", \
                background, commands, log_file, background, log_file
        }
        block = 0
        next
    }
    block { commands = commands $0 "\n" }
' README.md >"$script"

# What cargo compiles is compiled before the clock of the first answer runs.
cargo build --release --bins
set -x
# shellcheck source=/dev/null
. "$script"
