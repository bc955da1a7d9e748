#!/usr/bin/env bash
# Ends what start.sh FOLDER has started, and waits for it.
set -euo pipefail
folder=$(realpath -m "${1:?usage: stop.sh FOLDER}")
for file in "$folder"/run/{node*,slurmctld,slurmdbd,mariadbd,munged}.pid; do
  [ -f "$file" ] || continue
  pid=$(cat "$file")
  kill "$pid" 2>/dev/null || true
  for _ in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
done
if [ "$(readlink /etc/slurm/slurm.conf)" = "$folder/slurm.conf" ]; then rm /etc/slurm/slurm.conf; fi
