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
mount -t tmpfs -o size=48m tmpfs "$directory"
here=(--data-dir "$directory/data")
serve=(serve "${here[@]}" --http 127.0.0.1:0 --listen 127.0.0.1:0)
"$program" "${here[@]}" init --space shop >/dev/null
# What was written before it was killed has to be read back, which takes a file of the log more.
"$program" "${serve[@]}" 2>/dev/null &
daemon=$!
for _ in $(seq 100); do
    ! "$program" "${here[@]}" put shop document texts one '{"text": "Comity"}' >/dev/null 2>&1 || break
    sleep 0.1
done
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
head -c 64M /dev/zero >"$directory/ballast" 2>/dev/null || true
if said=$(timeout 30 "$program" "${serve[@]}" 2>&1) || [ $? = 124 ]; then
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
