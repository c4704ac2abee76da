#!/usr/bin/env bash
# A Ray cluster of several nodes on this machine: `cluster/local.sh --help` says how.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

# The Python that has Ray: $PYTHON, that of the checkout, that of the active environment.
python="${PYTHON:-}"
for candidate in "$here/../.venv/bin/python" "$(command -v python3 || true)"; do
  if [[ -z "$python" && -x "$candidate" ]] && "$candidate" -c 'import ray' 2>/dev/null; then
    python="$candidate"
  fi
done
if [[ -z "$python" ]]; then
  echo "local.sh: no Python with Ray found; make one (make .venv/.ready) or set PYTHON" >&2
  exit 2
fi

exec "$python" "$here/laptop" "$@"
