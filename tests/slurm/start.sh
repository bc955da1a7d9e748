#!/usr/bin/env bash
# A SLURM of one node on this machine, for tests: start.sh FOLDER. Everything it writes is in FOLDER, but for a link at
# /etc/slurm/slurm.conf: the srun inside of a job does not see SLURM_CONF. As root; Debian's slurm-wlm and munge.
# CPUS and MEMORY_MB: what the node has, whatever the machine has; a job that uses more memory than it asked for is killed.
set -euo pipefail
folder=$(realpath -m "${1:?usage: start.sh FOLDER}")
host=$(hostname -s)
cpus=${CPUS:-$(nproc)}
memory=${MEMORY_MB:-$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)}
if [ -e /etc/slurm/slurm.conf ] && [ ! -L /etc/slurm/slurm.conf ]; then
  echo "/etc/slurm/slurm.conf is there: this machine has a SLURM of its own" >&2
  exit 1
fi
mkdir -p "$folder"/{munge,state,spool,log,run} /etc/slurm /run/munge
chmod 711 "$folder" "$folder/run"
chmod 700 "$folder/munge"
if ! munge -n >/dev/null 2>&1; then
  [ -f "$folder/munge/key" ] || (umask 077 && head -c 128 /dev/urandom >"$folder/munge/key")
  munged --force --key-file="$folder/munge/key" --pid-file="$folder/run/munged.pid" \
    --log-file="$folder/log/munged.log" --seed-file="$folder/munge/seed"
fi
cat >"$folder/slurm.conf" <<CONF
ClusterName=distillbench
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${CONTROLLER_PORT:-16917}
SlurmdPort=${NODE_PORT:-16918}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
MinJobAge=300
EnforcePartLimits=ALL
ReturnToService=2
KillWait=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory
PartitionName=cpu Nodes=$host Default=YES MaxTime=02:00:00 State=UP
CONF
ln -sfn "$folder/slurm.conf" /etc/slurm/slurm.conf
slurmctld -c
slurmd -c
for _ in $(seq 300); do
  if [ "$(sinfo --noheader --format %T 2>/dev/null)" = idle ]; then exit 0; fi
  sleep 0.1
done
echo "the node is not idle after 30 s; see $folder/log" >&2
tail -n 20 "$folder"/log/*.log >&2
exit 1
