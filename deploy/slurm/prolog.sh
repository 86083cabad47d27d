#!/bin/sh
# Slurm's Prolog, on each node, as root: a job's images are mounted before it begins.
# Trouble of ours is no reason to drain a node: whatever happens, it ends with 0, and in time.
conf=/etc/dray/hooks.conf

# In a shell of its own: a mistake in the configuration ends that one alone.
(
    set -a
    . "$conf"
    [ -n "${SPANK_DRAY_IMAGES-}${SPANK_DRAY_PULLS-}" ] || exit 0
    exec "$TIMEOUT" -k 5 "$((PROLOG_SECONDS + 5))" "$DRAY" hook prolog --wait "$PROLOG_SECONDS"
) </dev/null
exit 0
