#!/usr/bin/env bash
# Drives a running daemon from the description of its API, with a public tool, and holds its answers to it: statuses,
# types, schemas and headers. The same examples each time. Installs the tool beside the build when it is missing; needs
# Python 3.10 or later.
set -euo pipefail
# The program takes every COMITY_ variable for one of its own.
unset "${!COMITY_@}"
cd "$(dirname "$0")"
config=$PWD/contract.toml
program=${1:?usage: contract.sh PROGRAM}
version=4.32.5
tools=$(realpath -m "${CONTRACT_TOOLS:-${CARGO_TARGET_DIR:-../target}/contract}")
if ! "$tools/bin/schemathesis" --version 2>/dev/null | grep -qF "$version"; then
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
fi
directory=$(mktemp -d)
daemon=
cleanup() {
    [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
    wait
    rm -rf "$directory"
}
trap cleanup EXIT
CONTRACT_SPACE=$("$program" --data-dir "$directory/data" --json init --space contract |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["space"])')
export CONTRACT_SPACE
"$program" serve --data-dir "$directory/data" --http 127.0.0.1:0 --listen 127.0.0.1:0 --log-format json \
    2>"$directory/log" &
daemon=$!
# The port is in the log as soon as it answers.
address=
for _ in $(seq 100); do
    address=$(sed -n 's/.*"http":"\[\([0-9.:]*\)\]".*/\1/p' "$directory/log" | head -1)
    [ -z "$address" ] || break
    sleep 0.1
done
[ -n "$address" ] || { cat "$directory/log" >&2; exit 1; }
# Something for the operations on documents to find.
"$program" --url "http://$address" put contract document texts one '{"text": "Comity", "list": [1, 2]}' >/dev/null
# Where the tool keeps notes that nobody needs.
cd "$directory"
# Feeds have no end, and the space has to stay.
"$tools/bin/schemathesis" --no-color --config-file "$config" run "http://$address/v1/openapi.json" \
    --phases fuzzing \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance \
    --exclude-operation-id changes --exclude-operation-id conflictEvents \
    --exclude-operation-id deleteSpace --exclude-operation-id leaveSpace
kill -0 "$daemon"
if grep -i panicked "$directory/log" >&2; then exit 1; fi
