#!/usr/bin/env bash
# What one worker of a pod does; launch/tpu_pod.sh sends these commands to all of them:
#
#   setup COMMIT     make ~/ttt_jax/new, just unpacked, the code that runs, and install it
#   start FLAGS...   begin ttt-train --distributed FLAGS, which outlives this shell
#   status           one line: running, finished, stopped, failed, died or idle
#   stop SECONDS     end training by SIGTERM, and after SECONDS by SIGKILL
#
# In ~/ttt_jax lie source/ and venv/, train.log, and train.lock, which is held while training
# runs, however it ends. All commands may be repeated: gcloud sends one again when the
# connection breaks.
# shellcheck disable=SC2329 # commands are called by name
set -euo pipefail
export VENV=${VENV:-$HOME/ttt_jax/venv}
cd ~/ttt_jax

say() {
  echo "[$(hostname)] $*"
}

running() {
  ! flock --shared --nonblock train.lock true # so that two who look see nothing of each other
}

# The images of TPU VMs may bring a Python that is too old: uv fetches one that is not.
fetch_python() {
  python3 -m pip install --quiet --user uv
  python3 -m uv python install --quiet 3.12
  python3 -m uv python find 3.12
}

setup() {
  local commit=$1
  if [ "$(cat commit 2>/dev/null)" = "$commit" ]; then
    say "ready: $commit"
    return
  fi
  if running; then
    say "training runs on $(cat commit): stop it before you set up $commit"
    exit 1
  fi
  rm -rf source commit
  mv new source
  cd source
  if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    PYTHON=$(fetch_python)
  fi
  # shellcheck source=launch/environment.sh
  source launch/environment.sh tpu
  echo "$commit" > ../commit
  say "ready: $commit"
}

start() {
  exec 9> train.lock
  if ! flock --timeout 5 9; then # somebody may just be looking
    say 'training runs already'
    return
  fi
  rm -f train.exit train.stopped
  : > train.pid
  nohup setsid bash source/launch/worker.sh run "$@" < /dev/null >> train.log 2>&1 & # keeps 9
  say 'training started'
}

run() {
  local code=0
  echo "== $(date -u '+%F %T') $(cat commit): ttt-train$(printf ' %q' "$@")"
  cd source # flags may name files of it
  "$VENV/bin/ttt-train" --distributed "$@" 9>&- & # what it may leave behind holds no lock
  echo $! > ../train.pid
  wait $! || code=$?
  echo "$code" > ../train.exit
}

status() {
  local code
  if running; then
    say 'running'
    return
  fi
  code=$(cat train.exit 2>/dev/null || true) # not earlier: it may have ended just now
  if [ "$code" = 0 ]; then
    say 'finished'
  elif [ -e train.stopped ]; then
    say 'stopped'
  elif [ -n "$code" ]; then
    say "failed: exit code $code, see train.log"
  elif [ -e train.pid ]; then
    say 'died' # with the machine, or by SIGKILL
  else
    say 'idle'
  fi
}

stop() {
  local grace=$1
  touch train.stopped
  if ! running; then
    say 'training does not run'
    return
  fi
  until [ -s train.pid ] || ! running; do # it begins just now
    sleep 0.1
  done
  kill -TERM "$(cat train.pid)" || true
  if ! flock --timeout "$grace" train.lock true; then
    kill -KILL "$(cat train.pid)" || true
    flock train.lock true
  fi
  say 'training stopped'
}

"$@"
exit
