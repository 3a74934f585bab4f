# shellcheck shell=bash
# Makes the virtual environment $VENV (default .venv) and installs the package into it with
# the extras named by the arguments; for `source`. What is already there is kept.
#
# PYTHON names the interpreter (default: the first of python3, 3.13, 3.12 and 3.11 that
# runs and is recent enough).

VENV=${VENV:-.venv}
extras=$(IFS=,; echo "$*")
mark="$VENV/.installed-$extras"

find_python() {
  local name names=(python3 python3.13 python3.12 python3.11)
  [ -z "${PYTHON:-}" ] || names=("$PYTHON")
  for name in "${names[@]}"; do
    if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "error: Python 3.11, 3.12 or 3.13 is needed; name one by PYTHON=..." >&2
  return 1
}

# Where libtpu is there for its compiler alone (the tests' extra has it), JAX would look for a
# TPU and complain that there is none.
if [ "$extras" != tpu ] && [ -z "$(ls -d /dev/accel* /dev/vfio /dev/nvidia[0-9]* /dev/kfd /dev/dxg 2>/dev/null)" ]; then
  export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
fi

# Large pages, where glibc has them to give: a step on a CPU takes its memory anew each time. One
# arena for all threads: with one a thread, what is free in them may grow and grow.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1}

# Where there is a lock for just these extras, exactly what it names is installed.
lock="launch/$extras.lock"

if [ ! "$mark" -nt setup.py ] || { [ -f "$lock" ] && [ ! "$mark" -nt "$lock" ]; }; then
  python=$(find_python)
  echo "installing into $VENV ..."
  "$python" -m venv "$VENV"
  pip=("$VENV/bin/python" -m pip install --quiet --disable-pip-version-check)
  if [ -f "$lock" ]; then
    "${pip[@]}" --require-hashes --requirement "$lock"
    "${pip[@]}" --no-deps --editable .
  else
    "${pip[@]}" --editable ".[$extras]"
  fi
  touch "$mark"
fi
