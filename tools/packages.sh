#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Installs what is missing of tools/packages.txt, or with --have only says what that is.
# usage: tools/packages.sh [--have] GROUP...
set -eu

list=$(dirname "$0")/packages.txt
have_only=
if [ "${1-}" = --have ]; then
    have_only=1
    shift
fi

# All lines of the groups asked for: package and what it provides.
wanted() {
    local group rest g
    while read -r group rest; do
        for g in "$@"; do
            [ "$group" = "$g" ] && echo "$rest"
        done
    done <"$list"
    return 0
}

# Whether one thing that a package provides is there. Asks no package manager, so it serves any system.
provided() {
    case $1 in
    /*) any_file "$1" ;;
    python:*) /usr/bin/python3 -c "import ${1#python:}" 2>/dev/null ;;
    cc:*) echo 'int main(void){return 0;}' | gcc "${1#cc:}" -x c -o /dev/null - 2>/dev/null ;;
    clang:*) # the fuzzer's library brings main() itself
        echo 'int LLVMFuzzerTestOneInput(const char *d, long n); int LLVMFuzzerTestOneInput(const char *d, long n){return d && n < 0;}' |
            clang "${1#clang:}" -x c -o /dev/null - 2>/dev/null ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

# Whether a file matches one of the patterns.
any_file() {
    local pattern patterns
    IFS='|' read -ra patterns <<<"$1"
    for pattern in "${patterns[@]}"; do
        compgen -G "$pattern" >/dev/null && return
    done
    return 1
}

# Packages of the groups of which something is not there, each with what that is.
lacking() {
    local package provides what
    wanted "$@" | while read -r package provides; do
        set -f # a pattern stays one
        for what in $provides; do
            provided "$what" || echo "$package ($what)"
        done
    done
}

# Packages of the groups that dpkg does not know as installed.
not_installed() {
    local package provides
    wanted "$@" | while read -r package provides; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed$' || echo "$package"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "packages: not root and no sudo; run as root: $*" >&2
        exit 1
    fi
}

if [ -n "$have_only" ]; then
    missing=$(lacking "$@")
    [ -z "$missing" ] && exit 0
    echo "missing: $(echo "$missing" | paste -sd'|' | sed 's/|/, /g')" >&2
    echo "\`make packages\` installs what is missing (Debian; elsewhere it prints the list)" >&2
    exit 1
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    missing=$(lacking "$@")
    [ -z "$missing" ] && exit 0
    echo "packages: this is no Debian system (no dpkg-query and apt-get); it lacks what these Debian packages hold:" >&2
    echo "$missing" | sed 's/^/    /' >&2
    echo "Install their equivalents by hand, then run the same command again." >&2
    exit 1
fi

missing=$(not_installed "$@")
if [ -n "$missing" ]; then
    echo "packages: installing" $missing
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
fi

# Installed and yet not usable (another compiler first in PATH, a diverted file): say so now, not in some test.
missing=$(lacking "$@")
[ -z "$missing" ] && exit 0
echo "packages: installed, but not found: $(echo "$missing" | paste -sd'|' | sed 's/|/, /g')" >&2
exit 1
