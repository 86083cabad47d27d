#!/bin/sh
# Slurm's PrologSlurmctld, as SlurmUser: a gateway hears of a job that has its nodes.
# Trouble of ours is no reason to hold a job: whatever happens, it ends with 0, and in time.
conf=/etc/dray/hooks.conf

# In a shell of its own: a mistake in the configuration ends that one alone.
(
    set -a
    . "$conf"
    [ -n "${SPANK_DRAY_IMAGES-}${SPANK_DRAY_PULLS-}" ] || exit 0
    exec "$TIMEOUT" -k 5 "$((ALLOCATE_SECONDS + 5))" "$DRAY" hook allocate --wait "$ALLOCATE_SECONDS"
) </dev/null
exit 0
