#!/usr/bin/env bash
# A SLURM on this machine, for tests: start.sh FOLDER. Everything it writes is in FOLDER, but for a link at
# /etc/slurm/slurm.conf: the srun inside of a job does not see SLURM_CONF. As root; Debian's slurm-wlm and munge.
# NODES: as many slurmd. CPUS and MEMORY_MB: what each node has, whatever the machine has; a job that uses more memory
# than it asked for is killed. ACCOUNTING=1: with slurmdbd on a MariaDB of its own. MIN_JOB_AGE: seconds that slurmctld
# remembers a finished job; it looks once a minute.
set -euo pipefail
folder=$(realpath -m "${1:?usage: start.sh FOLDER}")
host=$(hostname -s)
nodes=${NODES:-1}
cpus=${CPUS:-$(nproc)}
memory=${MEMORY_MB:-$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)}
link=/etc/slurm/slurm.conf
# ours is the link that an earlier call left: it dangles, or what it leads to says so
if [ -e "$link" ] && { [ ! -L "$link" ] || ! grep -q '^ClusterName=distillbench$' "$link"; }; then
  echo "$link is there: this machine has a SLURM of its own" >&2
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
SlurmctldPort=16917
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
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
SlurmdParameters=config_overrides
MinJobAge=${MIN_JOB_AGE:-300}
EnforcePartLimits=ALL
ReturnToService=2
KillWait=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/%n.log
PartitionName=cpu Nodes=ALL Default=YES MaxTime=02:00:00 State=UP
CONF
for n in $(seq "$nodes"); do
  echo "NodeName=node$n NodeHostname=$host NodeAddr=127.0.0.1 Port=$((16917 + n)) CPUs=$cpus RealMemory=$memory"
done >>"$folder/slurm.conf"
if [ "${ACCOUNTING:-0}" = 1 ]; then
  export MYSQL_UNIX_PORT=$folder/run/mariadb.socket
  mariadb-install-db --no-defaults --user=root --datadir="$folder/database" --auth-root-authentication-method=normal \
    --skip-test-db >"$folder/log/mariadb.log"
  mariadbd --no-defaults --user=root --datadir="$folder/database" --socket="$MYSQL_UNIX_PORT" --skip-networking \
    --pid-file="$folder/run/mariadbd.pid" >>"$folder/log/mariadb.log" 2>&1 &
  cat >>"$folder/slurm.conf" <<CONF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16916
CONF
  (umask 077 && cat >"$folder/slurmdbd.conf") <<CONF
AuthType=auth/munge
DbdHost=$host
DbdAddr=127.0.0.1
DbdPort=16916
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
LogFile=$folder/log/slurmdbd.log
PidFile=$folder/run/slurmdbd.pid
CONF
  until [ -S "$MYSQL_UNIX_PORT" ]; do sleep 0.1; done
  SLURM_CONF=$folder/slurm.conf slurmdbd
fi
ln -sfn "$folder/slurm.conf" "$link"
if [ "${ACCOUNTING:-0}" = 1 ]; then
  until sacctmgr --immediate add cluster distillbench >/dev/null 2>&1; do sleep 0.1; done
fi
slurmctld -c
for n in $(seq "$nodes"); do slurmd -c -N "node$n"; done
for _ in $(seq 300); do
  if [ "$(sinfo --noheader --Node --format %T 2>/dev/null | grep --count idle)" = "$nodes" ]; then exit 0; fi
  sleep 0.1
done
echo "not all nodes are idle after 30 s; see $folder/log" >&2
tail -n 20 "$folder"/log/*.log >&2
exit 1
