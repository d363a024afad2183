#!/usr/bin/env bash
# Measures the program as it is handed out: its size, the memory of an idle daemon with 10,000 spaces and 100,000
# objects, and how long it takes from its start until it is ready with a million objects. Fails beyond the bounds.
set -euo pipefail
# The program takes every COMITY_ variable for one of its own.
unset "${!COMITY_@}"
cd "$(dirname "$0")/.."
program=${1:-}
if [ -z "$program" ]; then
    cargo build --locked --profile dist -p comity-daemon
    program=${CARGO_TARGET_DIR:-target}/dist/comity
fi
exec python3 daemon/footprint.py "$program"
