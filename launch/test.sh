#!/usr/bin/env bash
# Installs what the tests need, and runs them: first the style, then the laws.
# Arguments go to pytest, say: launch/test.sh tests/model -k causal
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh speech serve test
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
"$VENV/bin/shellcheck" --external-sources launch/*.sh .ci/run
exec "$VENV/bin/python" -m pytest "$@"
