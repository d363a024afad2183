#!/usr/bin/env bash
# A daemon refuses to start on a disk that is full, with a sentence that says so, and starts once there is room. Needs to
# mount a file system of its own, which takes root or user namespaces.
set -euo pipefail
# The program takes every COMITY_ variable for one of its own.
unset "${!COMITY_@}"
program=$(realpath "${1:?usage: full-disk.sh PROGRAM}")
if [ -z "${FULL_DISK_INSIDE:-}" ]; then
    inside=(unshare --mount)
    [ "$(id -u)" = 0 ] || inside=(unshare --mount --user --map-root-user)
    if ! "${inside[@]}" true 2>/dev/null; then
        echo "NOT RUN: full-disk.sh may not mount a file system here"
        exit 0
    fi
    FULL_DISK_INSIDE=1 exec "${inside[@]}" "$0" "$program"
fi
directory=$(mktemp -d)
trap 'umount "$directory"; rmdir "$directory"' EXIT
mount -t tmpfs -o size=24m tmpfs "$directory"
"$program" --data-dir "$directory/data" init --space shop >/dev/null
head -c 30M /dev/zero >"$directory/ballast" 2>/dev/null || true
if said=$("$program" serve --data-dir "$directory/data" --http 127.0.0.1:0 2>&1); then
    echo "it started on a full disk" >&2
    exit 1
fi
case $said in
    *"no space left"*"Free some space and start again"*) ;;
    *) echo "it says: $said" >&2; exit 1 ;;
esac
rm "$directory/ballast"
"$program" --data-dir "$directory/data" verify
echo "refused on a full disk: $said"
