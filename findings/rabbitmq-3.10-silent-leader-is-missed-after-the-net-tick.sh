#!/usr/bin/env bash
# RabbitMQ 3.10.8, Erlang 25 (Debian 12): when a quorum queue's leader falls silent, nothing is confirmed before the net tick.
#
# Three nodes, a quorum queue with a member on each, its leader on a. Node a is stopped (SIGSTOP): it answers nothing, and
# its connections stay open, as where a network drops all packets. The other two are a majority. Yet nothing that a client
# publishes to either of them, over a fresh connection, is confirmed until they count a as down: after net_ticktime, which
# is 60 s by default and means 45 to 75 s. Choosing another node does not help a client. Seen with the default, in two
# network partitions: confirmed after 63 and 67 s. RabbitMQ 4.3.6 with the same default confirmed within 9 s.
#
# Here net_ticktime is 16, so that a counts as down after 12 to 20 s. An attempt is given up after 2 s without an answer.
# Expected: what is published within the first 8 s is confirmed, as by 4.3.6 within 9 s.
# Seen: no answer to anything published in the first 14 s, both confirm after 18 or 19 s. What is published just before
# may get a nack.
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
end() { # SIGKILL ends stopped processes, too
    [ ${#pids[@]} = 0 ] || { kill -KILL "${pids[@]}"; wait "${pids[@]}"; } 2>/dev/null || true
    rm -rf "$folder"
}
trap end EXIT
trap 'exit 130' INT TERM HUP
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pika==1.3.2 2>pip.log || cannot "pip: $(tail -n 1 pip.log)"

# Debian 12's packages, unpacked into a folder of their own by an apt that knows nothing of this machine's packages.
mkdir -p apt/lists/partial apt/cache/archives/partial root/{dev,proc,tmp,etc/rabbitmq} root/usr/{bin,sbin,lib,lib64}
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
read -ra ports < <(python3 -c 'import socket
found = [socket.create_server(("127.0.0.1", 0)) for _ in range(7)]
print(*(one.getsockname()[1] for one in found))')
export HOME=/ ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=${ports[6]}
inside epmd </dev/null >epmd.log 2>&1 & pids+=($!)
listens "$ERL_EPMD_PORT" epmd
nodes=(a b c) # all at RabbitMQ's default paths, where names differ by node
printf 'cluster_formation.%s\n' "peer_discovery_backend = classic_config" \
    "classic_config.nodes."{"1 = a","2 = b","3 = c"}"@localhost" >root/etc/rabbitmq/rabbitmq.conf
for number in 0 1 2; do # each joins those before it
    RABBITMQ_NODENAME=${nodes[number]}@localhost RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT=${ports[number]} \
        RABBITMQ_DIST_PORT=${ports[number + 3]} RABBITMQ_ALLOW_INPUT=1 RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-noinput +sbwt none \
        +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1} -kernel net_ticktime 16" \
        inside /usr/lib/rabbitmq/bin/rabbitmq-server </dev/null >"${nodes[number]}.log" 2>&1 & pids+=($!)
    listens "${ports[number]}" "${nodes[number]}"
done

venv/bin/python - "${ports[0]}" <<'P'
import sys, pika
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(sys.argv[1])))
server = connection._impl.server_properties
print("RabbitMQ", server["version"], "on", server["platform"])
connection.channel().queue_declare("q", durable=True, arguments={"x-queue-type": "quorum"})
P
queue=$(inside /usr/lib/rabbitmq/bin/rabbitmqctl -n a@localhost --silent list_queues name leader online)
echo "queue, leader and members: ${queue//$'\t'/ }"
[[ $queue == q?a@localhost?\[*,*,*\] ]] || cannot "the queue is not led by a with three members"

cat >try.py <<'P'
import multiprocessing, os, signal, sys, time, pika

ANSWERS = {0: "confirmed", 3: "nack", -signal.SIGALRM: "nothing"}

def publish(port):
    channel = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port)).channel()
    channel.confirm_delivery()
    signal.alarm(2)  # then ends this process
    try:
        channel.basic_publish("", "q", b"1")
    except pika.exceptions.NackError:
        sys.exit(3)

def answers():  # of b and c, which are asked at once
    attempts = [multiprocessing.Process(target=publish, args=(int(port),)) for port in sys.argv[2:]]
    [one.start() for one in attempts]
    [one.join() for one in attempts]
    return [ANSWERS.get(one.exitcode, "failed") for one in attempts]

before = answers()
print("before:", *before, flush=True)
os.kill(int(sys.argv[1]), signal.SIGSTOP)
began, after, early, found = time.monotonic(), 0.0, [], []
while found != ["confirmed"] * 2 and after < 60:
    time.sleep(0.5)
    after = time.monotonic() - began
    found = answers()
    early += found if after < 8 else []
    print(f"published {after:.0f} s after a fell silent:", *found, flush=True)
sys.exit(before != ["confirmed"] * 2 or set(early) != {"nothing"} or found != ["confirmed"] * 2)
P
venv/bin/python try.py "${pids[1]}" "${ports[1]}" "${ports[2]}"
echo "as described"
