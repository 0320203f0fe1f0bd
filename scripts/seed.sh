#!/bin/sh
# Insert 10,000 todos of seed-user (see `todo seed --help`), with the virtual environment of this checkout.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
todo="$root/.venv/bin/todo"
[ -x "$todo" ] || todo=$(command -v todo) || {
    echo "No todo command: run \`make install\` first." >&2
    exit 1
}
exec "$todo" seed "$@"
