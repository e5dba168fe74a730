#!/usr/bin/env bash
# RabbitMQ 3.10.8, Erlang 25 (Debian 12): a quorum queue is unusable once the node's data folder is moved to another path.
#
# One node, a quorum queue with ten messages, confirmed. The node is stopped cleanly, its data folder is moved, and it
# is started there by RABBITMQ_MNESIA_BASE, with the same name, cookie and ports. Expected: the queue is as it was,
# as with RabbitMQ 4.3.6.
#
# Seen: the node starts, rabbitmqctl list_queues lists the queue, declaring it succeeds. Then basic.get (basic.consume,
# too) ends the connection with 541 INTERNAL_ERROR, and what is published gets a nack. After a move the queue's process
# does not start: its log is not found (enoent). Nothing is lost: with the folder moved back, the queue works and has all
# ten.
#
# The cause: quorum/NODE/QUEUE/config has the absolute data_dir and wal_data_dir of when the queue was declared, and ra
# 2.2.0, the Raft library, goes by them at a restart; it even makes folders at the old path. With the new path written
# into this file, while the node is stopped, the queue works at the new path. ra 2.4.2 no longer stores them.
#
# After a move, deleting the queue and declaring it anew helps only until the next restart: then its process does not
# start (enoent), at the path where it was declared, and what was confirmed is out of reach.
#
# Needs root, for chroot, and a Debian mirror among this machine's package sources. Takes about two minutes.
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

# Debian 12's packages, unpacked into a folder of their own by an apt that knows nothing of this machine's packages.
mkdir -p apt/lists/partial apt/cache/archives/partial root/{dev,proc,tmp,etc} root/usr/{bin,sbin,lib,lib64}
: >apt/status
echo "deb [signed-by=$keys] $mirror bookworm main" >apt/sources.list
private_apt() {
    apt-get -qq -y -o Dir::State="$folder/apt" -o Dir::State::status="$folder/apt/status" -o Dir::Cache="$folder/apt/cache" \
        -o Dir::Etc::SourceList="$folder/apt/sources.list" -o Dir::Etc::SourceParts=none -o Dir::Etc::PreferencesParts=none \
        -o APT::Sandbox::User=root "$@" >>apt/log 2>&1 || cannot "apt-get: $(tail -n 1 apt/log)"
}
private_apt update
private_apt install --download-only --no-install-recommends '?essential' 'rabbitmq-server=3.10.8*'
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

cat >use.py <<'P'
import sys, pika

def use(port, step):
    channel = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port)).channel()
    channel.queue_declare("q", durable=True, arguments={"x-queue-type": "quorum"})
    if step == "publish":
        channel.confirm_delivery()
        for _ in range(10):
            channel.basic_publish("", "q", b"1", pika.BasicProperties(delivery_mode=2))
        return "confirmed"
    return sum(1 for _ in iter(lambda: channel.basic_get("q")[0], None))  # none is acknowledged, all remain

try:
    print("declared,", use(int(sys.argv[1]), sys.argv[2]))
except pika.exceptions.ConnectionClosedByBroker as error:
    print("closed with", error.reply_code)
except pika.exceptions.NackError:
    print("declared, nack")
P
failed=0
expect() { # expect WHERE STEP OUTPUT
    seen=$(timeout 60 venv/bin/python use.py "$port" "$2" 2>/dev/null) || seen="no answer"
    echo "$1, $2: $seen"
    [ "$seen" = "$3" ] || { echo "expected: $3"; failed=1; }
}
start() { # start FOLDER LOG
    RABBITMQ_MNESIA_BASE=$1 RABBITMQ_LOGS=- RABBITMQ_NODENAME=a@localhost RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 \
        RABBITMQ_NODE_PORT=$port RABBITMQ_DIST_PORT=$distribution RABBITMQ_ALLOW_INPUT=1 \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-noinput +sbwt none +sbwtdcpu none +sbwtdio none \
        -kernel inet_dist_use_interface {127,0,0,1}" \
        inside /usr/lib/rabbitmq/bin/rabbitmq-server </dev/null >"$2.log" 2>&1 & pids[1]=$!
    listens "$port" "$2"
}
ctl() { (inside /usr/lib/rabbitmq/bin/rabbitmqctl -n a@localhost --silent "$@"); }
stop() { ctl stop; wait "${pids[1]}" || true; unset 'pids[1]'; }
logged() { # logged LOG PATTERN ...: whether the node logged all of these
    for pattern in "${@:2}"; do
        grep -m 1 -o "$pattern" "$1.log" || { echo "$1: not logged: $pattern"; failed=1; }
    done
}

mkdir root/old
start /old first
echo "RabbitMQ $(ctl eval 'io:format("~s, Erlang ~s", [rabbit_misc:version(), rabbit_misc:otp_release()]).' | sed 's/ok$//')"
expect "at its path" publish "declared, confirmed"
stop
start /old again
expect "started again" get "declared, 10"
stop
echo "paths in: $(cd root/old && grep -rlaF /old .)"

mv root/{old,new}
start /new moved
echo "listed: $(ctl list_queues name)"
expect "moved" get "closed with 541"
expect "moved" publish "declared, nack"
stop
logged moved "quorum queue '.*' could not be restarted" '{badmatch,{error,enoent}}'
[ -d root/old/a@localhost/quorum ] && echo "folders made at the old path" || { echo "no folder made at the old path"; failed=1; }

rm -rf root/old
mv root/{new,old}
start /old back
expect "moved back" get "declared, 10"
stop

mv root/{old,new}
sed -i 's,"/old/,"/new/,' root/new/a@localhost/quorum/a@localhost/*/config
start /new edited
expect "paths edited" get "declared, 10"
expect "paths edited" publish "declared, confirmed"
stop

mv root/{new,old}
start /old deleted
expect "moved once more" get "closed with 541"
ctl delete_queue q 2>delete.log
expect "declared anew" publish "declared, confirmed"
expect "declared anew" get "declared, 10"
stop
start /old anew
expect "declared anew, started again" get "closed with 541"
stop
logged anew "quorum queue '.*' could not be restarted {error,enoent}"
[ $failed = 0 ] && echo "as described"
exit $failed
