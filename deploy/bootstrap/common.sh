# Shared by the bootstrap scripts; sourced, not run.

say() { printf '%s\n' "$*" >&2; }

have() { command -v "$1" >/dev/null 2>&1; }

may_apt() { [ "$(id -u)" = 0 ] && have apt-get; }

apt_update() {
    say "Reading the package lists ..."
    apt-get -q update </dev/null >&2
}

apt_get_install() { apt-get -q -y --no-install-recommends install "$@" </dev/null >/dev/null; }

# Install Debian packages without starting what they bring: the tests run their own servers.
apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    if ! ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1; then
        apt_update || return 1
    fi
    policy=/usr/sbin/policy-rc.d
    ours=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && ours=1
    fi
    say "Installing $* ..."
    status=0
    # Lists that are there may be old, and name versions that are gone.
    apt_get_install "$@" || { apt_update && apt_get_install "$@"; } || status=$?
    [ -z "$ours" ] || rm -f "$policy"
    return "$status"
}
