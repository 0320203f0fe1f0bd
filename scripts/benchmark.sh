#!/bin/sh
# Measure GET /todos?limit=100 of a running API (see `todo bench http --help`).
#
#   scripts/benchmark.sh [base_url] [duration_sec] [concurrency] [options]
#
# Defaults: http://localhost:8080, 30 seconds, 200 connections. JSON, Markdown and plots go to bench-results/.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
todo="$root/.venv/bin/todo"
[ -x "$todo" ] || todo=$(command -v todo) || {
    echo "No todo command: run \`make install\` first." >&2
    exit 1
}
exec "$todo" bench http "$@"
