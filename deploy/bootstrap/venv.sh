#!/bin/sh
# Make .venv with Dray and one of its extras (all, dev or fuzz) in it; at once if it is there already.
set -eu
extra=${1:?usage: venv.sh all|dev|fuzz}
cd "$(dirname "$0")/../.."
. deploy/bootstrap/common.sh

wanted=$(cat pyproject.toml hatch_build.py deploy/enter/*.[ch] deploy/enter/Makefile | cksum)

is_current() {
    [ "$(cat ".venv/.installed-$1" 2>/dev/null)" = "$wanted" ] && is_usable
}

# Its commands hold the path of the checkout: one that was moved has to be made again.
is_usable() {
    { [ ! -e .venv/.made-in ] || [ "$(cat .venv/.made-in)" = "$PWD" ]; } &&
        new_enough .venv/bin/python
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# The system's python3 may be too old (3.9 on RHEL 9) while a newer one stands beside it.
find_python() {
    for python in ${PYTHON:-} python3.14 python3.13 python3.12 python3.11 python3; do
        if new_enough "$python"; then
            return 0
        fi
    done
    python=
    return 1
}

explain_python() {
    say "Dray needs Python 3.11 or newer; none was found. Install one and run this again:"
    say "  Debian 12+, Ubuntu 24.04+:  apt-get install python3 python3-venv"
    say "  RHEL, Rocky, Alma 8 and 9:  dnf install python3.12"
    say "  any system, as a user:      install uv, which brings its own Python"
    say "or name one: make PYTHON=/path/to/python3.12 ..."
    exit 1
}

explain_venv() {
    say "$python cannot make a virtual environment: its module ensurepip is missing."
    say "Debian and Ubuntu have it in a package of its own:  apt-get install $(venv_package)"
    exit 1
}

venv_package() {
    "$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
}

make_venv() {
    if ! find_python && ! have uv && may_apt; then
        apt_install python3 python3-venv || apt_install python3.11 python3.11-venv || true
        find_python || true
    fi
    rm -rf .venv
    if [ -n "$python" ] && "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv .venv
    elif have uv; then
        uv venv --quiet --seed --python "${python:->=3.11}" .venv
    elif [ -z "$python" ]; then
        explain_python
    elif may_apt && apt_install "$(venv_package)"; then
        "$python" -m venv .venv
    else
        explain_venv
    fi
}

# What tests need includes what the demo needs; what fuzzing needs includes both.
case $extra in
all) larger='dev fuzz' ;;
dev) larger=fuzz ;;
*) larger= ;;
esac
for installed in $extra $larger; do
    if is_current "$installed"; then
        exit 0
    fi
done
is_usable || make_venv
printf '%s\n' "$PWD" >.venv/.made-in
say "Installing Dray's Python packages into .venv (once; about half a minute) ..."
if .venv/bin/python -m pip --version >/dev/null 2>&1; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
        --editable ".[$extra]" </dev/null >&2
else
    uv pip install --quiet --python .venv/bin/python --editable ".[$extra]" </dev/null >&2
fi
printf '%s\n' "$wanted" >".venv/.installed-$extra"
