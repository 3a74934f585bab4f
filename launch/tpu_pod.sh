#!/usr/bin/env bash
# Trains on a Cloud TPU pod slice: the same command on every host of it.
#
#   TPU=my-pod ZONE=us-east5-a launch/tpu_pod.sh \
#     --config=configs/tiny.py --config.data.directory=/mnt/data --workdir=/mnt/runs/a
#
# The folders must be mounted on every host. Copies the last commit to the hosts, installs it
# there with the extra [tpu], and starts ttt-train with --distributed: the hosts find each
# other. Needs gcloud, logged in, and a TPU that exists. PROJECT is optional.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${TPU:?name the TPU: TPU=my-pod}" "${ZONE:?name its zone: ZONE=us-east5-a}"
where=(--zone="$ZONE" ${PROJECT:+--project="$PROJECT"})

archive=$(mktemp -t ttt_jax.XXXXXX.tar.gz)
trap 'rm -f "$archive"' EXIT
git archive --format=tar.gz --output="$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$TPU:ttt_jax.tar.gz" --worker=all "${where[@]}"

arguments=$(printf ' %q' "$@")
gcloud compute tpus tpu-vm ssh "$TPU" --worker=all "${where[@]}" --command="
  set -euo pipefail
  mkdir -p ttt_jax && tar -xzf ttt_jax.tar.gz -C ttt_jax && cd ttt_jax
  source launch/environment.sh tpu
  exec \"\$VENV/bin/ttt-train\" --distributed$arguments"
