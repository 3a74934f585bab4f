#!/usr/bin/env bash
# Trains on Cloud TPU: see usage below, and docs/tpu.md.
# shellcheck disable=SC2329 # commands are called by name
set -euo pipefail

usage() {
  cat <<'END'
launch/tpu_pod.sh COMMAND [OPTIONS] [-- FLAGS OF ttt-train]

Commands, each of which may be repeated:
  create   ask for a queued resource, and wait until it is there
  setup    copy the last commit to every worker, and install it there
  train    start ttt-train with FLAGS on every worker; it outlives the connection
  status   state of the queued resource, and of training on each worker
  logs     follow the log of the first worker
  stop     end training: SIGTERM, then SIGKILL
  delete   delete the queued resource and its TPUs, which cost money until then

Options. Each that takes a value can be set by the environment too: --zone=Z is POD_ZONE=Z.
  --name=NAME      of the queued resource; needed
  --zone=ZONE      needed
  --project=ID     default: gcloud's own
  --type=TYPE      create: accelerator type, say v5litepod-16
  --runtime=IMAGE  create: software of the TPU VMs; default: Google's for the type
  --slices=N       how many slices of TYPE train together; default 1
  --spot           create: a spot TPU, cheaper, and taken away at any time
  --wait=SECONDS   create: how long to wait until it is there; default 86400
  --env=KEY=VALUE  train: a variable for ttt-train; may be repeated
  --retries=N      train: stay here and, up to N times, create what was preempted, set it
                   up and start again; needs the options of create; default 0
  --poll=SECONDS   between two looks at a state; default 60
  --grace=SECONDS  stop: between SIGTERM and SIGKILL; default 120
  --create-flag=F, --ssh-flag=F   one more flag for gcloud; may be repeated
  --dry-run        print the calls of gcloud, and make none
END
}

say() {
  echo "$*" >&2
}

fail() {
  say "error: $*"
  exit 1
}

# A word as a shell reads it.
quoted() {
  case $1 in
    '' | *[!A-Za-z0-9_./:=,@%+-]*) sed "s/'/'\\\\''/g; 1s/^/'/; \$s/\$/'/" <<< "$1" ;;
    *) printf '%s\n' "$1" ;;
  esac
}

settings() {
  name=${POD_NAME:-} zone=${POD_ZONE:-} project=${POD_PROJECT:-}
  type=${POD_TYPE:-} runtime=${POD_RUNTIME:-} slices=${POD_SLICES:-1} wait=${POD_WAIT:-86400}
  retries=${POD_RETRIES:-0} poll=${POD_POLL:-60} grace=${POD_GRACE:-120}
  spot='' dry='' environment='' flags='' create_flags=() ssh_flags=()
  local pair
  while [ $# -gt 0 ]; do
    case $1 in
      --name=* | --zone=* | --project=* | --type=* | --runtime=* | --slices=* | --wait=* | \
        --retries=* | --poll=* | --grace=*)
        pair=${1#--}
        printf -v "${pair%%=*}" %s "${pair#*=}"
        ;;
      --spot) spot=yes ;;
      --dry-run) dry=yes ;;
      --env=[A-Za-z_]*=*)
        pair=${1#--env=}
        environment+="${pair%%=*}=$(quoted "${pair#*=}") "
        ;;
      --create-flag=*) create_flags+=("${1#*=}") ;;
      --ssh-flag=*) ssh_flags+=("${1#*=}") ;;
      --)
        shift
        for pair in "$@"; do flags+=" $(quoted "$pair")"; done
        break
        ;;
      *) fail "unknown option $1 (see launch/tpu_pod.sh --help)" ;;
    esac
    shift
  done
  [ -n "$name" ] || fail 'name the queued resource: --name=NAME'
  [ -n "$zone" ] || fail 'name the zone: --zone=ZONE'
  for pair in slices wait retries grace; do
    [[ ${!pair} =~ ^[0-9]+$ ]] || fail "--$pair=${!pair} is not a whole number"
  done
  [[ $poll =~ ^[0-9.]+$ ]] || fail "--poll=$poll is not a number"
  where=(--zone="$zone")
  [ -z "$project" ] || where+=(--project="$project")
}

# What Google names for JAX: https://docs.cloud.google.com/tpu/docs/runtimes
default_runtime() {
  case $type in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v4-*) echo tpu-ubuntu2204-base ;;
    *) fail "which software has a TPU of type '$type'? --runtime=IMAGE" ;;
  esac
}

# Calls gcloud, or shows the call: on 3, because what gcloud prints may be read by a program.
cloud() {
  local word line=''
  set -- gcloud compute tpus queued-resources "$@" "${where[@]}"
  if [ -z "$dry" ]; then
    "$@"
  else
    for word in "$@"; do line+="$(quoted "$word") "; done
    echo "${line% }" >&3
  fi
}

# The state of the queued resource, empty if there is none. In a dry run it is as hoped for.
state() {
  cloud list --filter="name~/$name\$" --format='value(state.state)' || return
  [ -z "$dry" ] || echo "$hoped"
}

# Runs a command on every worker of every slice, and keeps their answers: [HOST] ...
everywhere() {
  cloud ssh "$name" --node=all --worker=all ${ssh_flags[@]+"${ssh_flags[@]}"} \
    --command="$1" | tee "$scratch/output" || return
  grep '^\[' "$scratch/output" > "$scratch/answers" || true
  # gcloud passes over a slice that it cannot reach, without an error. Worker 3 of one is SLICE-w-3.
  if [ -z "$dry" ] && \
    [ "$(sed 's/-w-[0-9]*\].*//' "$scratch/answers" | sort -u | wc -l)" -lt "$slices" ]; then
    say "not every slice of $name answers"
    return 1
  fi
}

# How many workers have answered so.
count() {
  grep -c "^\[[^]]*\] $1" "$scratch/answers" || true
}

# Has every worker do what launch/worker.sh says.
worker() {
  everywhere "if [ -d ttt_jax/source ]; then $1; else echo \"[\$(hostname)] not set up\"; fi"
}

# A pod that was there and that somebody has deleted is not made again.
create() {
  local now requested='' before='' deadline=$((SECONDS + wait))
  [ -n "$type" ] || fail 'name the accelerator type: --type=TYPE'
  runtime=${runtime:-$(default_runtime)} || exit
  while [ "$SECONDS" -lt "$deadline" ]; do
    # A slip while waiting is no end.
    now=$(state) || { [ -n "$before$requested" ] && now=$before; } || return
    [ "$now" = "$before" ] || say "$name: ${now:-not there}"
    before=$now
    case $now in
      ACTIVE)
        made=yes
        return
        ;;
      '')
        [ -z "$made" ] || { deleted; continue; }
        [ -n "$requested" ] || request || return
        requested=yes hoped=ACTIVE
        ;;
      SUSPENDED | FAILED) # preempted, or never there: it stays so, and keeps its name
        [ -z "$requested" ] || break
        cloud delete "$name" --force --quiet || return
        made=''
        continue
        ;;
      DELETING) [ -z "$made" ] || { deleted; continue; } ;;
      SUSPENDING) ;;
      *) made=yes ;;
    esac
    [ -n "$dry" ] || sleep "$poll"
  done
  say "$name is ${now:-not there}; create again to go on waiting, delete to give up"
  return 1
}

# Ends, unless a second look finds the pod: a list may lack it for once.
deleted() {
  sleep "$poll"
  case $(state || echo unknown) in
    '' | DELETING) fail "somebody has deleted $name" ;;
  esac
}

request() {
  local options=(--accelerator-type="$type" --runtime-version="$runtime")
  if [ "$slices" -gt 1 ]; then
    options+=(--node-count="$slices" --node-prefix="$name")
  else
    options+=(--node-id="$name")
  fi
  [ -z "$spot" ] || options+=(--spot)
  cloud create "$name" "${options[@]}" ${create_flags[@]+"${create_flags[@]}"}
}

active() {
  local now
  now=$(state) || return
  [ "$now" = ACTIVE ] || { say "$name is ${now:-not there}: create it first"; return 1; }
}

setup() {
  active || return
  [ -z "$(git status --porcelain)" ] || say 'note: what is not committed stays here'
  git archive --format=tar.gz --output="$scratch/source.tar.gz" "$commit" || return
  cloud scp "$scratch/source.tar.gz" "$name:ttt_jax-$commit.tar.gz" --node=all --worker=all \
    ${ssh_flags[@]+"${ssh_flags[@]}"} || return
  # Files get the time of the copy, so that an environment made before is brought up to date.
  everywhere "mkdir -p ttt_jax && exec 8> ttt_jax/setup.lock && flock 8 && \
rm -rf ttt_jax/new && mkdir ttt_jax/new && \
tar -xzmf ttt_jax-$commit.tar.gz -C ttt_jax/new && bash ttt_jax/new/launch/worker.sh setup $commit"
}

# Has training run on every worker: starts it where it runs on none, after doing what is named.
# Once it has begun, a stop that comes between two tries counts.
begin() {
  local running all
  worker "$look" > /dev/null || return
  running=$(count running) all=$(wc -l < "$scratch/answers")
  if [ "$running" -gt 0 ]; then
    if [ "$running" -eq "$all" ]; then
      say 'training runs already'
      start=again
      return
    fi
    cat "$scratch/answers"
    say 'training still runs on some workers: stop it, or wait for its end'
    return 1
  fi
  "$@" && worker "${environment}bash ttt_jax/source/launch/worker.sh $start$flags" && start=again
}

is_set_up() {
  [ "$(count 'not set up')" -eq 0 ] || { say 'set it up first'; return 1; }
}

# Waits until training is over. Fails if it is to be started again.
watch() {
  local now silent=0
  [ -z "$dry" ] || return 0
  while [ "$silent" -lt 5 ]; do
    sleep "$poll"
    silent=$((silent + 1))
    now=$(state) || continue
    case $now in
      ACTIVE) ;;
      '' | DELETING)
        deleted
        continue
        ;;
      *)
        say "$name is $now"
        return 1
        ;;
    esac
    worker "$look" > /dev/null || continue
    silent=0
    if [ "$(count running)" -eq 0 ]; then
      cat "$scratch/answers"
      [ "$(count stopped)" -gt 0 ] || [ "$(count finished)" -eq "$(wc -l < "$scratch/answers")" ]
      return
    fi
  done
  say "$name does not answer"
  return 1
}

train() {
  local left
  [ -n "$flags" ] || fail 'train needs flags for ttt-train: -- --config=... --workdir=...'
  if [ "$retries" -eq 0 ]; then
    active && begin is_set_up
    return
  fi
  for ((left = retries; ; left--)); do
    create && begin setup && watch && return
    [ "$left" -gt 0 ] || fail "given up after $retries retries; $name costs until deleted"
    say "starting again; retries left: $((left - 1))"
    sleep "$poll"
  done
}

status() {
  local now
  now=$(state) || return
  echo "$name: ${now:-not there}"
  [ "$now" != ACTIVE ] || worker "$look"
}

logs() {
  active || return
  cloud ssh "$name" --node=0 --worker=0 ${ssh_flags[@]+"${ssh_flags[@]}"} \
    --command='tail -n 100 -F ttt_jax/train.log'
}

stop() {
  local now
  now=$(state) || return
  case $now in
    ACTIVE) worker "bash ttt_jax/source/launch/worker.sh stop $grace" ;;
    '') echo "$name: not there" ;;
    *) fail "$name is $now, and train --retries may wait for it: end that, or delete $name" ;;
  esac
}

delete() {
  local now
  now=$(state) || return
  case $now in
    '' | DELETING) echo "$name: ${now:-not there}" ;;
    *) cloud delete "$name" --force --quiet ;;
  esac
}

main() {
  local command=${1:-}
  case $command in
    create | setup | train | status | logs | stop | delete) shift ;;
    --help | help) usage && return ;;
    *) fail "begin with create, setup, train, status, logs, stop or delete, not '$command'" ;;
  esac
  settings "$@"
  cd "$(dirname "$0")/.."
  commit=$(git rev-parse HEAD)
  look='bash ttt_jax/source/launch/worker.sh status'
  hoped=ACTIVE made='' start=start
  [ "$command" != create ] || hoped=''
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  "$command"
}

exec 3>&1
main "$@"
exit
