#!/usr/bin/env bash
# What one worker of a pod does; launch/tpu_pod.sh sends these commands to all of them:
#
#   setup COMMIT     make ~/ttt_jax/new, just unpacked, the code that runs, and install it
#   start FLAGS...   begin ttt-train --distributed FLAGS, which outlives this shell
#   again FLAGS...   the same, unless it was stopped
#   status           one line: running, finished, stopped, failed, died, idle or not set up
#   stop SECONDS     end training by SIGTERM, and after SECONDS by SIGKILL
#
# In ~/ttt_jax lie source/ and venv/, commit, once it is installed, train.log, and two locks:
# train.lock is held while training runs, however it ends, and setup.lock by whoever has it set
# up. All commands may be repeated: gcloud sends one again when the connection breaks, and what it
# sent before may still be at work.
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
  rm -f commit # first: without it nothing starts
  rm -rf source
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
  begin anew "$@"
}

again() {
  begin again "$@"
}

# Begins training, anew or again: anew, it may have been stopped before.
begin() {
  local how=$1
  shift
  exec 8> setup.lock 9> train.lock
  if ! flock --shared --nonblock 8 || [ ! -s commit ]; then
    say 'not set up'
    exit 1
  fi
  if ! flock --timeout 5 9; then # somebody may just be looking
    say 'training runs already'
    return
  fi
  [ "$how" = again ] || rm -f train.stopped # not earlier: a stop may be under way
  if [ -e train.stopped ]; then
    say 'stopped'
    return
  fi
  rm -f train.exit
  : > train.pid
  # It keeps 9.
  nohup setsid bash source/launch/worker.sh run "$@" < /dev/null >> train.log 2>&1 8>&- &
  say 'training started'
}

run() {
  local code=0
  echo "== $(date -u '+%F %T') $(cat commit): ttt-train$(printf ' %q' "$@")"
  cd source # flags may name files of it
  # shellcheck source=launch/environment.sh
  source launch/environment.sh tpu
  # What it may leave behind holds no lock. Where its number cannot be written, it does not begin.
  (echo "$BASHPID" > ../train.pid && exec "$VENV/bin/ttt-train" --distributed "$@") 9>&- &
  wait $! || code=$?
  echo "$code" > ../train.exit
}

status() {
  local code=''
  # Once before the code is read, as it may just end, and once behind, as it may just begin.
  if running || { code=$(cat train.exit 2>/dev/null || true) && running; }; then
    say 'running'
  elif [ ! -s commit ]; then
    say 'not set up'
  elif [ "$code" = 0 ]; then
    say 'finished'
  elif [ -e train.stopped ]; then
    say 'stopped'
  elif [ -n "$code" ]; then
    say "failed: exit code $code, see train.log"
  elif [ -e train.pid ]; then
    say 'died' # with the machine, or with this script
  else
    say 'idle'
  fi
}

# Whether a number is that of training: it may be left from before the machine was started.
is_training() {
  [ -n "$1" ] && [ "/proc/$1/cwd" -ef source ]
}

stop() {
  local grace=$1 pid pids told='' end=0
  touch train.stopped || say 'train.stopped cannot be written: train --retries may start it again'
  if ! running; then
    say 'training does not run'
    return
  fi
  while running; do # somebody may start it, or may have: each that is found is told
    pid=$(cat train.pid || true)
    if [ "$pid" != "$told" ] && is_training "$pid"; then
      touch train.stopped || true # a start removes it
      kill -TERM "$pid" || true
      told=$pid end=$((SECONDS + grace))
    elif [ -n "$told" ] && [ "$pid" = "$told" ] && [ "$SECONDS" -ge "$end" ]; then
      # With what a supervisor has begun, which would save for a while.
      read -ra pids < "/proc/$pid/task/$pid/children" || true
      kill -KILL "$pid" "${pids[@]}" || true
    fi
    sleep 0.1
  done
  say 'training stopped'
}

"$@"
exit
