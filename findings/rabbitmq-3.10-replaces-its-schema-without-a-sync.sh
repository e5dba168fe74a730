#!/usr/bin/env bash
# RabbitMQ 3.10.8, Erlang 25 (Debian 12): mnesia's schema.DAT, when repaired at a start, is replaced without a sync.
#
# A node with a quorum queue and ten confirmed messages is killed and started again. Expected: a file that replaces
# another is synced before the rename, as the node does with its schema_version.
#
# Seen: schema.DAT has a mark for "open". It is set and synced before the file is changed. The writes after it, with the
# mark for "closed", are not synced. If the mark for "closed" is missing, the next opening repairs the file: it writes
# schema.DAT.TMP and renames it over schema.DAT, without a sync.
#
# 1. The node is killed while schema.DAT is open. The next start repairs it. After the rename it syncs another file,
#    DECISION_TAB.LOG, and only then schema.DAT, since there are changes to write to it.
# 2. The mark for "closed" does not get to the file: strace leaves this one write out, which a power cut may do, too, as
#    it was never synced. mnesia opens the file again in the same start and repairs it. Now there is nothing to change
#    in it: the new file is not synced as long as the node runs, while the WAL of the queue is.
#
# Killed while idle, the node did not repair it: the kernel still has all writes. RabbitMQ 4.3.6 has no schema.DAT.
#
# Why it matters: on a disk where a sync makes names durable before data (XFS promises no order; ext4 by default writes
# the data of a file before it is renamed over another, auto_da_alloc), the next power cut may leave schema.DAT torn. In
# a test on a file system that drops what was not synced, the node then did not start, with mnesia_app in its error, in
# four of five runs. So keep RabbitMQ's data on ext4.
#
# Needs root, for chroot, the right to trace processes, and a Debian mirror among this machine's package sources. Takes
# two to three minutes.
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
private_apt install --download-only --no-install-recommends '?essential' 'rabbitmq-server=3.10.8*' strace
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

(inside strace -o /dev/null true) 2>/dev/null || cannot "not allowed to trace a process"

cat >use.py <<'P'
import sys, pika

channel = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(sys.argv[1]))).channel()
if sys.argv[2] == "publish":
    channel.queue_declare("q", durable=True, arguments={"x-queue-type": "quorum"})
    channel.confirm_delivery()
    for _ in range(10):
        channel.basic_publish("", "q", b"1", pika.BasicProperties(delivery_mode=2))
    print("confirmed")
else:
    print(sum(1 for _ in iter(lambda: channel.basic_get("q")[0], None)))  # none is acknowledged, all remain
P
failed=0
expect() { # expect STEP OUTPUT
    seen=$(timeout 60 venv/bin/python use.py "$port" "$1" 2>use.log) || seen="no answer: $(tail -n 1 use.log)"
    echo "$1: $seen"
    [ "$seen" = "$2" ] || { echo "expected: $2"; failed=1; }
}
node=/data/a@localhost
launch() { # launch NAME [OPTION ...]: starts the node, which is the child, under strace, which is its grandchild
    RABBITMQ_MNESIA_BASE=/data RABBITMQ_LOGS=- RABBITMQ_NODENAME=a@localhost RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 \
        RABBITMQ_NODE_PORT=$port RABBITMQ_DIST_PORT=$distribution RABBITMQ_ALLOW_INPUT=1 \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-noinput +sbwt none +sbwtdcpu none +sbwtdio none \
        -kernel inet_dist_use_interface {127,0,0,1}" \
        inside strace -D -f -y -qq -o "/$1.trace" -P $node/schema.DAT -e trace="$calls" "${@:2}" \
        /usr/lib/rabbitmq/bin/rabbitmq-server </dev/null >"$1.log" 2>&1 & pids[1]=$!
}
calls=open,openat,rename,renameat,renameat2,fsync,fdatasync,sync,syncfs,sync_file_range,msync,pwrite64,ftruncate
ended() { wait "${pids[1]}" 2>/dev/null || true; unset 'pids[1]'; sleep 1; }
cut_off() { sleep 3; kill -KILL "${pids[1]}"; ended; } # mnesia writes its log within two seconds
# What a trace has, in a word for each call. A call interrupted by another thread has two lines; the first one counts.
cat >events.py <<'P'
import re, sys

for line in open(sys.argv[1]):
    call = re.match(r"\d+ +(\w+)\((.*)", line)
    if not call or " = -1 " in line:
        continue
    name, rest = call.groups()
    files = [file.rsplit("/", 1)[1] for file in re.findall(r'[<"](/data/[^>"]*)', rest)]
    if "sync" in name:
        print("sync:" + (files[0] if files else "all"))
    elif name.startswith("rename") and files[-1] == "schema.DAT":
        print("rename:" + files[0])
    elif name.startswith("open") and files[-1] == "schema.DAT.TMP" and re.search("O_WRONLY|O_RDWR", rest):
        print("write:schema.DAT.TMP" + (":synchronous" if "SYNC" in rest else ""))
    elif name == "pwrite64" and files[0] == "schema.DAT" and re.search(r'"\\0\\0\\0\\0", 4, 8\b', rest):
        print("marked:open")
    elif name == "pwrite64" and files[0] == "schema.DAT" and re.search(r", 312, 0\b", rest):
        print("left-out:closed" if "INJECTED" in rest else "marked:closed")
P
has() { # has NAME TEXT PATTERN: whether the events of this start match
    local events
    events=$(python3 events.py "root/$1.trace" | uniq | tr '\n' ' ')
    if grep -qP "$3" <<<"$events"; then echo "$1: $2"; else echo "$1: not so: $2: $events"; failed=1; fi
}

launch first
listens "$port" first
expect publish confirmed
cut_off
has first "schema.DAT is synced when marked as open, not when marked as closed" \
    'marked:open sync:schema.DAT marked:closed ((?!sync:).)*$'
cp -a root/data root/copy

# 1. killed while schema.DAT is open
launch killed -e inject=ftruncate:signal=SIGKILL
{ timeout 60 tail --pid="${pids[1]}" -f /dev/null; } 2>/dev/null || cannot "this start did not change schema.DAT"
ended
has killed "killed with schema.DAT open" '^marked:open sync:schema.DAT $'
launch repaired -P $node/schema.DAT.TMP -P $node/DECISION_TAB.LOG
listens "$port" repaired
expect get 10
cut_off
has repaired "no sync of schema.DAT.TMP, rename, sync of another file, only then of schema.DAT" \
    '^write:schema.DAT.TMP rename:schema.DAT.TMP (sync:DECISION_TAB.LOG )+marked:open sync:schema.DAT '

# 2. the mark for "closed", the second pwrite64 to schema.DAT, is left out
rm -rf root/data
mv root/copy root/data
launch lost -P $node/schema.DAT.TMP -P $node/quorum/a@localhost/00000002.wal -e inject=pwrite64:retval=312:when=2
listens "$port" lost
expect get 10
expect publish confirmed
cut_off
has lost "no sync of schema.DAT.TMP, rename, no sync of schema.DAT, but of the WAL" \
    'left-out:closed write:schema.DAT.TMP rename:schema.DAT.TMP (sync:00000002.wal )+$'
[ $failed = 0 ] && echo "as described"
exit $failed
