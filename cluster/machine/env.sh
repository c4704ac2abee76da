# shellcheck shell=bash
# Read by every shell of a machine of `ray up` (the three YAML files send it there, and ~/.bashrc reads it).
export PATH="$HOME/.rayfed-hn/venv/bin:$PATH"
export RAY_AUTH_MODE=token           # the token itself is in ~/.ray/auth_token, mode 0600
export RAY_TMPDIR="$HOME/.rayfed-hn" # logs and sockets, in a folder that nobody else can enter
export RAY_JOB_STOP_WAIT_TIME_S=30   # 'ray job stop': a run may end its actors and say how to go on
