#!/usr/bin/env bash
# Run skyfold on a dask cluster of its own: start it, run the commands, end it, whatever happens.
#
#     EXPOSURE=deep.fits FGCM_RUN=fgcm_run OUT=out WORKERS=8 bash batch.sh
#
# What is complete in OUT is kept, so that a job that was broken off can simply be run again. The
# exit code is that of the first command that fails; the logs of the cluster then stay in OUT.
# Whoever reaches the scheduler's port can run code as you: use this on a network that you trust.
set -euo pipefail

: "${EXPOSURE:?which exposure?}" "${FGCM_RUN:?which run of FGCM?}" "${OUT:?which folder?}"
WORKERS=${WORKERS:-2}        # processes
THREADS=${THREADS:-1}        # of each
MEMORY=${MEMORY:-auto}       # of each, such as 8GiB
INTERFACE=${INTERFACE:-}     # of the network, such as ib0; default the one that dask finds
LAUNCH=${LAUNCH:-}           # runs what follows it once for each worker, such as srun
PATIENCE=${PATIENCE:-300}    # seconds that the cluster may take to start
SKYFOLD=${SKYFOLD:-skyfold}
DASK=${DASK:-dask}
PYTHON=${PYTHON:-python3}

commands() {  # replace them by yours; everything that workers open must have the same path there
    local address=$1 flat="$OUT/flat.fits"
    if [ ! -e "$flat" ]; then
        watched "$SKYFOLD" map "$EXPOSURE" "$flat" --mapper background --scheduler "$address" --no-progress
    fi
    watched "$SKYFOLD" products "$FGCM_RUN" "$OUT/products" --scheduler "$address" --no-progress
}

main() {
    mkdir -p "$OUT"
    logs=$(mktemp -d "$OUT/cluster.XXXXXX")
    trap end EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM

    # Port 0 is any that is free, as there may be other jobs on this machine.
    local file="$logs/scheduler.json" address=
    start "$DASK" scheduler --port 0 --dashboard-address :0 --scheduler-file "$file" \
        ${INTERFACE:+--interface "$INTERFACE"} > "$logs/scheduler.log" 2>&1
    scheduler=$job
    SECONDS=0
    until [ -n "$address" ]; do
        alive
        [ "$SECONDS" -lt "$PATIENCE" ] || fail "the scheduler has not started in $PATIENCE s"
        sleep 0.2
        address=$(sed -n 's/^ *"address": "\(.*\)".*/\1/p' "$file" 2> /dev/null | head -n 1) || true
    done

    local here=$WORKERS
    [ -z "$LAUNCH" ] || here=1
    # shellcheck disable=SC2086  # LAUNCH is a command with its options
    start $LAUNCH "$DASK" worker "$address" --nworkers "$here" --nthreads "$THREADS" \
        --memory-limit "$MEMORY" --local-directory "${TMPDIR:-/tmp}" --no-dashboard \
        --death-timeout "$PATIENCE" ${INTERFACE:+--interface "$INTERFACE"} > "$logs/workers.log" 2>&1
    workers=$job
    watched "$PYTHON" -c '
import sys
from distributed import Client
address, workers, seconds = sys.argv[1:]
with Client(address, timeout=f"{seconds}s") as client:
    client.wait_for_workers(int(workers), timeout=f"{seconds}s")
' "$address" "$WORKERS" "$PATIENCE"
    echo "$WORKERS workers at $address"
    commands "$address"
}

scheduler='' workers='' command=''

start() {  # in a process group of its own, which can be ended as a whole
    set -m
    "$@" &
    job=$!
    set +m
}

watched() {  # run a command; without a cluster it would wait for ever
    local code=0
    start "$@"
    command=$job
    while kill -0 "$command" 2> /dev/null; do
        alive
        sleep 0.2
    done
    wait "$command" || code=$?
    command=
    return "$code"
}

alive() {
    [ -z "$scheduler" ] || kill -0 "$scheduler" 2> /dev/null || fail "the scheduler has ended"
    [ -z "$workers" ] || kill -0 "$workers" 2> /dev/null || fail "the workers have ended"
}

fail() {
    echo "$0: $1" >&2
    exit 1
}

end() {
    local code=$?
    trap '' HUP INT TERM
    stop INT "$command"
    stop TERM "$workers"
    stop TERM "$scheduler"
    if [ "$code" = 0 ]; then
        rm -r "$logs"
    else
        echo "$0: exit code $code; the logs of the cluster are in $logs" >&2
    fi
    exit "$code"
}

stop() {  # ask, wait for 10 s at most, end all that is left of it
    [ -n "$2" ] || return 0
    kill "-$1" "$2" 2> /dev/null || true
    for _ in {1..50}; do
        kill -0 -- "-$2" 2> /dev/null || return 0
        sleep 0.2
    done
    kill -KILL -- "-$2" 2> /dev/null || true
}

main
