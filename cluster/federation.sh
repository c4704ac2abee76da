#!/usr/bin/env bash
# A federation as hospitals would run it, on one machine: the server and every site are processes of
# users of their own, in network namespaces of their own, that reach each other over mutual TLS only.
#
#   sudo cluster/federation.sh BAGS FOLDER STUDY.yaml [section.key=value ...]
#
# BAGS is a bag store with several sites. Into FOLDER goes a home for everybody: the bags of that
# site and no other, its certificate, its run directory. Then it shows that a certificate of another
# authority is refused, runs the federation, and shows that the server's user cannot read any bag.
# Exit code: that of the server; 1 if something that must be refused was not; 2 if it cannot start.
# Nothing outside of FOLDER and of namespaces named rfh-* is touched, and these are taken away.
# shellcheck disable=SC2086,SC2329  # RAYFED_HN may be several words; a trap calls take_away
set -euo pipefail

RAYFED_HN=${RAYFED_HN:-rayfed-hn}         # the program, as every user can run it
FIRST_UID=${FIRST_UID:-61001}             # of the server; sites have the ones after it
PORT=${PORT:-8443}
NET=10.77.0                               # inside of the namespaces only
PREFIX="rfh-$$"

fail() { echo "federation.sh: $*" >&2; exit 2; }

(($# >= 3)) || fail "give BAGS FOLDER STUDY.yaml [section.key=value ...]"
bags=$(realpath "$1") folder=$(realpath -m "$2") study=$(realpath "$3")
shift 3
[[ $EUID -eq 0 ]] || fail "needs root, for namespaces and users; run it with sudo"
for tool in ip setpriv; do command -v "$tool" >/dev/null || fail "$tool is missing (iproute2, util-linux)"; done
[[ -f $bags/recipe.json ]] || fail "$bags is no bag store; make one with rayfed-hn embed"
[[ -f $study ]] || fail "$study does not exist"
[[ ! -e $folder ]] || fail "$folder is there already; give a new folder"
told=$(setpriv --reuid "$FIRST_UID" --regid "$FIRST_UID" --clear-groups env -i HOME=/ PATH="$PATH" \
  ${PYTHONPATH:+PYTHONPATH="$PYTHONPATH"} $RAYFED_HN --version 2>&1) || fail "user $FIRST_UID cannot run\
 '$RAYFED_HN' (${told##*$'\n'}); install it where every user can read it, with a Python that every\
 user can run, and name it: RAYFED_HN=/opt/rayfed-hn/bin/rayfed-hn"

sites=() pids=()
for path in "$bags"/site=*/; do sites+=("$(basename "${path#*site=}")"); done
names=$(IFS=,; echo "${sites[*]}")
declare -A uid address
uid[server]=$FIRST_UID address[server]=$NET.1
for i in "${!sites[@]}"; do
  uid[${sites[i]}]=$((FIRST_UID + i + 1)) address[${sites[i]}]=$NET.$((i + 2))
done

end_all() { # with this signal, what runs in the namespaces; 1 if there was nothing
  local party pid found=1
  for party in server "${sites[@]}"; do
    for pid in $(ip netns pids "$PREFIX-$party" 2>/dev/null); do
      kill "-$1" "$pid" 2>/dev/null || true
      found=0
    done
  done
  return "$found"
}

take_away() { # the programs too: what a shell started in the background outlives that shell
  end_all TERM || true # once: it interrupts, and again it would interrupt the tidying up
  for _ in {1..50}; do end_all 0 || break; sleep 0.1; done
  end_all KILL || true
  wait 2>/dev/null || true
  for party in switch server "${sites[@]}"; do ip netns del "$PREFIX-$party" 2>/dev/null || true; done
}
trap take_away EXIT

plug_in() { # a namespace for one party, with a cable to the switch
  local party=$1 number=$2
  ip netns add "$PREFIX-$party"
  ip link add eth0 netns "$PREFIX-$party" type veth peer name "port$number" netns "$PREFIX-switch"
  ip -n "$PREFIX-$party" address add "${address[$party]}/24" dev eth0
  ip -n "$PREFIX-$party" link set lo up
  ip -n "$PREFIX-$party" link set eth0 up
  ip -n "$PREFIX-switch" link set "port$number" master bridge0
  ip -n "$PREFIX-switch" link set "port$number" up
  # Sites reach the server, and not each other.
  if [[ $party != server ]]; then
    ip -n "$PREFIX-switch" link set "port$number" type bridge_slave isolated on
  fi
}

as() { # run a command as one party: its user, its namespace, its home, nothing of our environment
  local party=$1 home=$folder/$1
  shift
  ip netns exec "$PREFIX-$party" setpriv --reuid "${uid[$party]}" --regid "${uid[$party]}" \
    --clear-groups --no-new-privs --inh-caps=-all \
    env -i -C "$home" HOME="$home" TMPDIR="$home/tmp" PATH="$PATH" ${PYTHONPATH:+PYTHONPATH="$PYTHONPATH"} "$@"
}

secured() { # the options by which a party proves who it is
  echo "--certificate $folder/$1/own.pem --key $folder/$1/own.key --ca $folder/$1/ca.pem"
}

# --- everybody's home ---
mkdir -p "$folder"
chmod 711 "$folder"
$RAYFED_HN certificates "$folder/pki" --sites "$names" --server "${address[server]}" >/dev/null
$RAYFED_HN certificates "$folder/pki/wrong" --sites "$names" >/dev/null
for party in server "${sites[@]}"; do
  home=$folder/$party stem=site-$party
  [[ $party == server ]] && stem=server
  mkdir -m 700 "$home" "$home/tmp"
  cp "$folder/pki/$stem.pem" "$home/own.pem"
  cp "$folder/pki/$stem.key" "$home/own.key"
  cp "$folder/pki/ca.pem" "$home/ca.pem"
  cp "$study" "$home/study.yaml"
  if [[ $party != server ]]; then
    mkdir "$home/bags"
    cp -r "$bags/recipe.json" "$bags/site=$party" "$home/bags/"
  fi
  chown -R "${uid[$party]}:${uid[$party]}" "$home"
  chmod -R go= "$home"
done

# --- everybody's network ---
ip netns add "$PREFIX-switch"
ip -n "$PREFIX-switch" link add bridge0 type bridge
ip -n "$PREFIX-switch" link set bridge0 up
number=0
for party in server "${sites[@]}"; do plug_in "$party" "$number"; number=$((number + 1)); done

# --- the run ---
server=${address[server]}:$PORT
# shellcheck disable=SC2046  # options are several words
as server $RAYFED_HN serve study.yaml "$@" "run.dir=$folder/server/run" --listen "$server" \
  --sites "$names" $(secured server) >"$folder/server/log" 2>&1 &
serving=$!
pids+=("$serving")
until grep -qs '^Listening' "$folder/server/log"; do
  kill -0 "$serving" 2>/dev/null || { cat "$folder/server/log" >&2; rm -r "$folder"; fail "the server did not start"; }
  sleep 0.2
done

first=${sites[0]} status=0
cp "$folder/pki/wrong/site-$first.pem" "$folder/$first/wrong.pem"
cp "$folder/pki/wrong/site-$first.key" "$folder/$first/wrong.key"
chown "${uid[$first]}" "$folder/$first"/wrong.*
as "$first" $RAYFED_HN join study.yaml "$@" data.bags=bags "run.dir=$folder/$first/never" \
  --server "$server" --certificate wrong.pem --key wrong.key --ca ca.pem \
  >"$folder/$first/wrong.log" 2>&1 &
trying=$!
pids+=("$trying")

for site in "${sites[@]}"; do
  # shellcheck disable=SC2046
  as "$site" $RAYFED_HN join study.yaml "$@" data.bags=bags "run.dir=$folder/$site/run" \
    --server "$server" $(secured "$site") >"$folder/$site/log" 2>&1 &
  pids+=("$!")
done

wait "$trying" && code=0 || code=$?
if [[ $code -eq 2 ]] && grep -q 'this certificate' "$folder/$first/wrong.log"; then
  echo "A certificate of another authority is refused:"
  grep 'this certificate' "$folder/$first/wrong.log"
else
  echo "A certificate of another authority was NOT refused (exit code $code)" && status=1
fi

wait "$serving" && code=0 || code=$?
for pid in "${pids[@]:2}"; do wait "$pid" || echo "a site ended with $?"; done

for site in "${sites[@]}"; do
  bag=$(find "$folder/$site/bags" -name '*.arrow' -print -quit)
  if refusal=$(as server cat "$bag" 2>&1 >/dev/null); then
    echo "The server's user CAN read the bags of $site" && status=1
  elif [[ $refusal == *"Permission denied"* ]]; then
    echo "The server's user on the bags of $site: Permission denied"
  else
    echo "Whether the server's user can read the bags of $site was NOT found out: $refusal" && status=1
  fi
  as "$site" cat "$bag" >/dev/null || { echo "The user of $site cannot read its own bags"; status=1; }
done
tail -n 3 "$folder/server/log"
grep '"digest"' "$folder/server/run/summary.json" || true
((status)) && exit "$status"
exit "$code"
