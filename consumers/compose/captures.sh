#!/bin/sh
# captures.sh LOG COMMAND…: runs COMMAND -r CAPTURE on every capture dropped into $CAPTURES, in the order of their names.
# What it wrote as LOG goes to $LOGS under a name of its own, the capture to done/ or failed/. Started again it goes on:
# a capture whose log is there already is only moved.
set -eu
CAPTURES=${CAPTURES:-/captures} LOGS=${LOGS:-/logs} QUIET_SECONDS=${QUIET_SECONDS:-5} EVERY_SECONDS=${EVERY_SECONDS:-2}
log=$1
shift

meter() {
  capture=$1 changed=$2
  shift 2
  target=$LOGS/$(basename "$capture").$changed.json work=$LOGS/.work
  if [ ! -e "$target" ]; then
    rm -rf "$work"
    mkdir "$work"
    if ! (cd "$work" && "$@" -r "$capture" >&2); then
      mv "$capture" "$CAPTURES/failed/"
      return
    fi
    [ ! -e "$work/$log" ] || mv "$work/$log" "$target"
  fi
  mv "$capture" "$CAPTURES/done/"
}

mkdir -p "$CAPTURES/done" "$CAPTURES/failed"
while :; do
  for capture in "$CAPTURES"/*.*cap*; do
    [ -f "$capture" ] || continue
    changed=$(stat -c %Y "$capture")
    [ $(($(date +%s) - changed)) -ge "$QUIET_SECONDS" ] || continue
    echo "captures: $capture" >&2
    meter "$capture" "$changed" "$@"
  done
  sleep "$EVERY_SECONDS"
done
