#!/usr/bin/env bash
# All tests: the slow ones, which run whole pipelines and mostly wait, beside the others. With arguments, only what they ask for.

set -uo pipefail
cd "$(dirname "$0")/.."

if [ $# -gt 0 ]; then
    exec .venv/bin/python -m pytest "$@"
fi

log=$(mktemp)
.venv/bin/python -m pytest -m slow > "$log" 2>&1 &
slow=$!
trap 'kill "$slow" 2> /dev/null; rm -f "$log"' EXIT
.venv/bin/python -m pytest -m "not slow"
others_failed=$?
wait "$slow"
slow_failed=$?
echo "the slow tests:"
cat "$log"
[ "$others_failed" = 0 ] && [ "$slow_failed" = 0 ]
