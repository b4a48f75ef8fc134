#!/bin/sh
# Installs a conda base environment. Needs no network, no Python, and of the system only what every Debian has.
set -eu

NAME='@NAME@'
PAYLOAD_SHA256='@PAYLOAD_SHA256@'
PAYLOAD_LINE='@PAYLOAD_LINE@'
PYTHON='@PYTHON@'
MODULES='@MODULES@'
GLIBC='@GLIBC@'

say() { [ -n "$quiet" ] || printf '%s\n' "$*"; }
fail() {
    printf 'installer: %s\n' "$*" >&2
    exit 1
}

usage() {
    cat <<USAGE
Usage: $0 [-b] [-f | -u] [-p PREFIX] [-s] [-h]
Installs $NAME.
  -b         without questions (there are none; accepted for scripts)
  -p PREFIX  folder of the base environment (default: ~/conda)
  -f, -u     go on although PREFIX exists
  -q         print nothing but errors
  -s, -m, -k accepted and without effect
  -h         this help
USAGE
}

prefix="${HOME:-}/conda" over='' quiet=''
while getopts bfhkmp:qsu option; do
    case "$option" in
    p) prefix=$OPTARG ;;
    f | u) over=yes ;;
    q) quiet=yes ;;
    h)
        usage
        exit 0
        ;;
    b | k | m | s) ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
done

case "$prefix" in
*[[:space:]]*) fail "the prefix '$prefix' holds a space; choose one without" ;;
/*) ;;
*) prefix=$PWD/$prefix ;;
esac
[ "$(uname -m)" = x86_64 ] || fail "this is for x86_64, the machine is $(uname -m)"
glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2)
if [ "$(printf '%s\n' "$GLIBC" "${glibc:-0}" | sort -V | head -n1)" != "$GLIBC" ]; then
    fail "this needs glibc $GLIBC or later, the system has ${glibc:-none}; use the installer made for its release"
fi
if [ -e "$prefix" ] && [ -z "$over" ]; then
    fail "$prefix exists already; remove it, give another -p, or go on in it with -u"
fi
[ "$(tail -n "+$PAYLOAD_LINE" "$0" | sha256sum | cut -d' ' -f1)" = "$PAYLOAD_SHA256" ] ||
    fail "$0 is damaged or incomplete; fetch it again"

say "Installing $NAME into $prefix ..."
mkdir -p "$prefix/pkgs" "$prefix/envs"
touch "$prefix/pkgs/urls.txt" # by this conda knows a package cache
tail -n "+$PAYLOAD_LINE" "$0" | tar -xz --no-same-owner -C "$prefix/pkgs"
path=''
for folder in $MODULES; do
    path=$path${path:+:}$prefix/pkgs/$folder
done
env -u PYTHONHOME -u CONDA_PREFIX -u CONDA_EXE PYTHONNOUSERSITE=1 PYTHONPATH="$path" CONDARC=/dev/null \
    CONDA_ROOT_PREFIX="$prefix" CONDA_PKGS_DIRS="$prefix/pkgs" PYTHONDONTWRITEBYTECODE=1 \
    "$prefix/pkgs/$PYTHON" "$prefix/pkgs/link_base.py" "$prefix" >/dev/null ||
    fail "linking the packages failed; $prefix is incomplete, remove it"
rm -f "$prefix/pkgs/link_base.py"
"$prefix/bin/conda" --version >/dev/null || fail "the installed conda does not start"
say "Done. To use it: . $prefix/bin/activate"
exit 0
@END@
