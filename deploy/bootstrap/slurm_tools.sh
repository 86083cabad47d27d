#!/bin/sh
# Have what `make slurm-demo` needs, where it may be installed; the demonstration says what is not.
set -eu
cd "$(dirname "$0")/../.."
. deploy/bootstrap/common.sh

# program:Debian package
TOOLS='munged:munge slurmctld:slurmctld slurmd:slurmd srun:slurm-client gcc:gcc make:make'

missing=
for tool in $TOOLS; do
    have "${tool%%:*}" || missing="$missing ${tool#*:}"
done
[ -e /usr/include/slurm/spank.h ] || missing="$missing libslurm-dev"
# The C library's headers come with it; a compiler alone may lack them.
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
if [ -n "$missing" ] && may_apt; then
    # shellcheck disable=SC2086
    apt_install $missing || true
fi
