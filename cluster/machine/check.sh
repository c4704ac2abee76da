#!/usr/bin/env bash
# Whether Ray can start on this machine with the folder of env.sh (by `ray up`, before anything starts).
# The name of a socket has 107 bytes at most, of which Ray's own part is 68:
# /ray/session_DATE_TIME_MICROSECONDS_PROCESS/sockets/plasma_store.
set -euo pipefail
LC_ALL=C # bytes, not letters

fail() {
  echo "check.sh: RAY_TMPDIR, $RAY_TMPDIR: $*; in cluster/machine/env.sh, set it to a short folder that" \
    "only this account can enter, the same on all machines" >&2
  exit 2
}

# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
((${#RAY_TMPDIR} <= 39)) || fail "${#RAY_TMPDIR} bytes, and Ray's sockets leave it 39"
[[ -d $RAY_TMPDIR ]] || mkdir -m 700 "$RAY_TMPDIR" || fail "it cannot be made"
[[ -O $RAY_TMPDIR ]] || fail "it is another's"
[[ $(stat --dereference --format %a "$RAY_TMPDIR") == 700 ]] || fail "others can enter it"
