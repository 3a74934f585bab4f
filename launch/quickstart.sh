#!/usr/bin/env bash
# Makes .venv, installs the package into it, and lets a model learn to read, listen and speak.
#
#   launch/quickstart.sh             the whole loop, 13 minutes on 2 cores
#   launch/quickstart.sh --fast      the same in about 2 minutes, under-trained
#   launch/quickstart.sh --voices=4  with four voices
#
# Other flags go to `python -m ttt_jax.cli.quickstart`; a second run skips what is done.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$(date +%s)
source launch/environment.sh speech
exec "$VENV/bin/python" -m ttt_jax.cli.quickstart --install_seconds=$(($(date +%s) - started)) "$@"
