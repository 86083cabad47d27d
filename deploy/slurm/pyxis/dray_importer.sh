#!/bin/sh
# The importer of pyxis (0.21 or newer), so that enroot gets Dray's images. In plugstack.conf:
#
#   required spank_pyxis.so importer=/usr/libexec/dray/slurm/dray_importer.sh
#
# `get URI` has the image pulled if it is missing, waits for it, and prints the path of its squashfs
# on the system's shared file system, where it stays: nothing is copied, and `release` has nothing
# to remove. pyxis runs it on a node as the job's user, whose MUNGE credential, or token, tells the
# gateway who asks. What goes to stderr is shown to the user if it fails.
conf=/etc/dray/hooks.conf

fail() {
    printf 'dray: %s\n' "$1" >&2
    exit 1
}

# docker://[USER@][REGISTRY#|REGISTRY/]IMAGE[:TAG][@DIGEST], as enroot has it, in Docker's words.
# A user's password is Dray's to keep (dray login), so that the name before @ says nothing here.
reference_of() {
    case $1 in
    docker://*) rest=${1#docker://} ;;
    *) fail "only images of registries can be had: write docker://IMAGE instead of $1" ;;
    esac
    digest=
    case $rest in
    *@sha256:*) digest=@sha256:${rest##*@sha256:} rest=${rest%@sha256:*} ;;
    esac
    rest=${rest##*@}
    case $rest in
    *\#*)
        registry=${rest%%\#*}
        # Without a dot or a port it would be taken for a name of Docker Hub.
        case $registry in
        *.* | *:* | localhost) ;;
        *) registry=$registry:443 ;;
        esac
        rest=$registry/${rest#*\#}
        ;;
    esac
    printf '%s\n' "$rest$digest"
}

get() {
    reference=$(reference_of "$1") || exit 1
    [ -r "$conf" ] || fail "cannot read $conf"
    set -a
    . "$conf"
    set +a
    [ -n "${DRAY_IMAGE_DIR-}" ] || fail "$conf does not say where images are: DRAY_IMAGE_DIR"
    id=$("$DRAY" lookup -q -- "$reference" 2>/dev/null)
    if [ -z "$id" ]; then
        "$TIMEOUT" "${IMPORT_SECONDS:-3600}" "$DRAY" pull -- "$reference" >&2 || exit 1
        id=$("$DRAY" lookup -q -- "$reference") || exit 1
    fi
    path=$DRAY_IMAGE_DIR/$id.squashfs
    [ -r "$path" ] || fail "$path is not for you to read here: enroot can have public images only"
    printf '%s\n' "$path"
}

case ${1-}:$# in
get:2) get "$2" ;;
release:1) ;; # pyxis calls it twice, and also without a get before
*) fail "usage: $0 get URI, or $0 release" ;;
esac
