#!/usr/bin/env bash
# bash install.sh FOLDER: the wheel in it that was built last, into ~/.rayfed-hn/venv (by `ray up`).
# Wheels of earlier releases lie beside it, as Ray's rsync takes nothing away. What is installed already
# is left alone: `ray up --no-restart` comes here while jobs run.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$HOME/.rayfed-hn/venv"
# shellcheck disable=SC2012  # a wheel's name has nothing odd in it
wheel="$(ls -t "$1"/rayfed_hn-*.whl | head -n 1)"
digest="$(cat "$wheel" "$here/constraints.txt" | sha256sum)"
if [[ "$(cat "$venv/installed" 2>/dev/null || true)" == "$digest" ]]; then exit; fi

rm -f "$venv/installed"
"$venv/bin/pip" install --quiet --constraint "$here/constraints.txt" "$wheel"
"$venv/bin/pip" install --quiet --no-deps --force-reinstall "$wheel" # the same version, built anew
echo "$digest" > "$venv/installed"
