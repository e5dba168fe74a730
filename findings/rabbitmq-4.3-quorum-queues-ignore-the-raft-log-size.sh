#!/usr/bin/env bash
# RabbitMQ 4.3.6 (Debian sid): quorum queues do not obey raft.wal_max_size_bytes, which is accepted without a word.
#
# The setting bounds the log that the quorum queues of a node share, 512 MiB by default; it is what operators set where
# memory is small, or where confirms must not wait for the writing of that much. 3.10.8 (Debian 12) and 4.0.5 (Debian 13)
# obey it. 4.3.6 still knows it, and starts with it; its quorum queues have a setting of their own by now,
# quorum_queue.wal_max_size_bytes, which 4.0.5 does not know and refuses to start with. So a configuration that is carried
# over from an older version has 512 MiB again.
#
# Expected: with raft.wal_max_size_bytes = 67108864 the log of quorum queues has 64 MiB, as before, or the node says that
# it is not used.
# Seen: the node starts, quorum queues run with 536870912, and one file of their log has more than 64 MiB once 150 MB are
# published. With quorum_queue.wal_max_size_bytes they run with 67108864, and no file has more than that and a batch.
#
# Needs root, for chroot, and a Debian mirror among this machine's package sources. Takes one to three minutes.
set -euo pipefail
cannot() { echo "cannot run here: $*"; exit 2; }
[ "$(id -u)" = 0 ] || cannot "not run as root, which chroot needs"
type -P apt-get dpkg-deb >/dev/null || cannot "not a Debian system: apt-get or dpkg-deb is missing"
unshare --mount true 2>/dev/null || cannot "not allowed to unshare a mount namespace"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keys" ] || cannot "no $keys"
mirror=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' 'Component: main' |
    sed -n 's/^Debian|Debian|//p' | sed -n 1p)
[ -n "$mirror" ] || cannot "this machine has no Debian package source (or needs apt-get update)"

folder=$(mktemp -d)
pids=()
end() {
    [ ${#pids[@]} = 0 ] || { kill -KILL "${pids[@]}"; wait "${pids[@]}"; } 2>/dev/null || true
    rm -rf "$folder"
}
trap end EXIT
trap 'exit 130' INT TERM HUP
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pika==1.3.2 2>pip.log || cannot "pip: $(tail -n 1 pip.log)"

# Packages unpacked into a folder of their own by an apt that knows nothing of this machine's packages.
mkdir -p apt/lists/partial apt/cache/archives/partial root/{dev,proc,tmp,etc/rabbitmq} root/usr/{bin,sbin,lib,lib64}
: >apt/status
echo "deb [signed-by=$keys] $mirror sid main" >apt/sources.list
private_apt() {
    apt-get -qq -y -o Dir::State="$folder/apt" -o Dir::State::status="$folder/apt/status" -o Dir::Cache="$folder/apt/cache" \
        -o Dir::Etc::SourceList="$folder/apt/sources.list" -o Dir::Etc::SourceParts=none -o Dir::Etc::PreferencesParts=none \
        -o APT::Sandbox::User=root "$@" >>apt/log 2>&1 || cannot "apt-get: $(tail -n 1 apt/log)"
}
private_apt update
private_apt install --download-only --no-install-recommends '?essential' 'rabbitmq-server=4.3.6*'
for directory in bin sbin lib lib64; do ln -s "usr/$directory" "root/$directory"; done
for package in apt/cache/archives/*.deb; do dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C root; done
echo "127.0.0.1 localhost" >root/etc/hosts

inside() { # each command in between replaces itself, so that $! is the program's own id
    exec unshare --mount sh -c 'mount --rbind /dev root/dev && mount -t proc proc root/proc && exec chroot root "$@"' sh "$@"
}
listens() { # waits for a port, at most two minutes
    for _ in {1..120}; do (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return; sleep 1; done
    cannot "$2 did not start: $(tail -n 3 "$2.log")"
}
read -r port distribution ERL_EPMD_PORT < <(python3 -c 'import socket
found = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(one.getsockname()[1] for one in found))')
export HOME=/ ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT
inside epmd </dev/null >epmd.log 2>&1 & pids=($!)
listens "$ERL_EPMD_PORT" epmd

cat >publish.py <<'P'
import os, sys, pika
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(sys.argv[1])))
print("RabbitMQ", connection._impl.server_properties["version"], flush=True)
channel = connection.channel()
channel.queue_declare("q", durable=True, arguments={"x-queue-type": "quorum"})
channel.confirm_delivery()
for _ in range(1500):
    channel.basic_publish("", "q", os.urandom(100_000), pika.BasicProperties(delivery_mode=2))
P
failed=0
look() { # look SETTING SIZE LARGE|SMALL: what quorum queues have with a setting, and whether a file of the log has more
    echo "$1 = 67108864" >root/etc/rabbitmq/rabbitmq.conf
    RABBITMQ_MNESIA_BASE=/data-$3 RABBITMQ_LOGS=- RABBITMQ_NODENAME=a@localhost RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 \
        RABBITMQ_NODE_PORT=$port RABBITMQ_DIST_PORT=$distribution RABBITMQ_ALLOW_INPUT=1 \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-noinput +sbwt none +sbwtdcpu none +sbwtdio none \
        -kernel inet_dist_use_interface {127,0,0,1}" \
        inside /usr/lib/rabbitmq/bin/rabbitmq-server </dev/null >"$3.log" 2>&1 & pids[1]=$!
    listens "$port" "$3"
    size=$(inside /usr/lib/rabbitmq/bin/rabbitmqctl -n a@localhost --silent eval \
        'maps:get(wal_max_size_bytes, ra_system:fetch(quorum_queues)).')
    timeout 300 venv/bin/python publish.py "$port" || cannot "publishing failed: $(tail -n 3 "$3.log")"
    largest=$(find "root/data-$3" -name '*.wal' -printf '%s\n' | sort -n | tail -n 1)
    echo "$1 = 67108864: quorum queues have $size, their largest log file $largest bytes"
    found=SMALL
    [ "$largest" -le $((80 * 1024 * 1024)) ] || found=LARGE
    [ "$size $found" = "$2 $3" ] || { echo "expected: $2, $3"; failed=1; }
    kill -KILL "${pids[1]}"
    wait "${pids[1]}" 2>/dev/null || true
    unset 'pids[1]'
    sleep 1
}
look raft.wal_max_size_bytes 536870912 LARGE
look quorum_queue.wal_max_size_bytes 67108864 SMALL
[ $failed = 0 ] || { echo "not as described"; exit 1; }
echo "as described"
