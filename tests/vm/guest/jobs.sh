# What the guest of scripts/vm does, sourced by init. One job is one life of the
# machine; the NVDIMMs and the disk are the same ones the next time.
#
#   job_test      run the tests on each backing
#   job_packages  run the tests of all packages
#   job_scale     hold 50 000 connections
#   job_killed    kill the server of the NIC and start it at once, under load
#   job_load      serve from a pool on each backing until the machine is killed
#   job_recover   look for what was acknowledged

# check NAME COMMAND... runs a command, and shows what it printed if it failed.
check() {
	local name=$1
	shift
	if "$@" >/tmp/out 2>&1; then
		echo "vm: ok $name"
	else
		echo "vm: FAILED $name (exit code $?)"
		tail -n 600 /tmp/out
	fi
}

# show NAME COMMAND... is check for a command whose output tells something.
show() {
	check "$@"
	cat /tmp/out
}

# say COMMAND... shows a command with what it prints.
say() {
	echo "# $*"
	"$@" 2>&1
}

# storage mounts the places that pools live in, and makes them if this is the
# machine's first life: NVDIMM 0 is a device-DAX device, 1 and 2 carry file
# systems with DAX, the disk one without.
storage() {
	local i
	mkdir -p /ext4 /xfs /disk
	if [ ! -e /dev/dax0.0 ]; then
		ndctl create-namespace -f -m devdax -a 2M -e namespace0.0 >/dev/null || return
		for i in 1 2; do
			ndctl create-namespace -f -m fsdax -e namespace$i.0 >/dev/null || return
		done
		mkfs.ext4 -q -F -b 4096 /dev/pmem1 &&
			mkfs.xfs -q -f -m reflink=0 /dev/pmem2 &&
			mkfs.ext4 -q -F -b 4096 /dev/vda || return
	fi
	mount -t ext4 -o dax=always /dev/pmem1 /ext4 &&
		mount -t xfs -o dax=always /dev/pmem2 /xfs &&
		mount -t ext4 /dev/vda /disk
}

# place NAME prints where the pool of a backing is.
place() {
	case $1 in
	dax) echo /dev/dax0.0 ;;
	*) echo "/$1/pool" ;;
	esac
}

# kind NAME prints what pastectl calls it.
kind() {
	case $1 in
	dax) echo device-dax ;;
	ext4 | xfs) echo fs-dax ;;
	disk) echo file ;;
	esac
}

job_test() {
	storage || { echo "vm: FAILED namespaces and file systems"; return; }
	say ndctl list -N
	say grep -E ' /(ext4|xfs|disk) ' /proc/mounts
	say ls -l /dev/dax0.0
	# Nothing has been on it, and it is smaller than a new pool is by default.
	check "dax: server on a blank device" serve_blank /dev/dax0.0
	local b
	for b in dax ext4 xfs disk; do
		echo "vm: backing $b"
		pool_commands "$b"
		PASTE_TEST_POOL=$(place "$b") PASTE_TEST_BACKING=$(kind "$b") check "$b: tests of a pool's life" vm.test -test.v
	done
	for b in ext4 xfs; do
		package_tests "$b"
	done
	head -c 3000000 /dev/urandom >/tmp/upload
	for b in dax ext4 disk; do
		show "$b: upload through a veth pair" over_veth "$b"
	done
}

# suite DIR [ARG...] runs one package's tests where they are at home, but for those
# that build programs, and one that waits for a fault which QEMU's emulated CPU never
# raises: it does nothing at all for clwb, on a page that is gone too.
suite() {
	cd "/suite/$1" && PASTE_TEST_PASTECTL=/vm/pastectl ./test -test.v -test.timeout=60m -test.skip '^(TestMutations|TestMemoryGone|TestHTTPServerExample|TestBrokerExample)$' "${@:2}"
}

# The programs must please this kernel's verifier, too.
job_packages() {
	local t
	# Some need a directory on a disk.
	storage && mount --bind /disk /var/tmp || { echo "vm: FAILED mount"; return; }
	ulimit -n 65536 # of many connections
	for t in $(cd /suite && find . -name test -type f | sed 's|^\./||; s|/test$||' | sort); do
		check "tests of package $t" suite "$t"
		grep -E '^ *--- (SKIP|FAIL)' /tmp/out
	done
}

job_scale() {
	ulimit -n 300000
	PASTE_SCALE=50000 show "50 000 connections" suite tests -test.run '^TestScale$'
}

# serve_blank DEVICE: a server that does not come up, and one that does.
serve_blank() {
	local why
	why=$(pastectl serve http --nic nosuchnic0 --listen 127.0.0.1:8080 --pool "$1" 2>&1) && return 1
	echo "$why"
	[[ $why == *nosuchnic0* ]] && [ -c "$1" ] || return
	timeout -s INT 20 pastectl serve http --listen 127.0.0.1:8080 --pool "$1" || [ $? -eq 124 ]
}

# pool_commands BACKING: pastectl pool on it.
pool_commands() {
	local pool
	pool=$(place "$1")
	say pastectl pool create "$pool" --size 64MiB --frame-size 4096 --force
	check "$1: pool info" pastectl pool info "$pool"
	pastectl pool info "$pool" | grep -qE "$(kind "$1")" || echo "vm: FAILED $1: pool info does not say $(kind "$1")"
	pastectl pool info "$pool"
	check "$1: pool check" pastectl pool check "$pool"
	check "$1: pool log" pastectl pool log "$pool" --verify
	check "$1: pool grow" pastectl pool grow "$pool" --size 80MiB
	check "$1: pool dump" eval "pastectl pool dump $pool >/tmp/dump"
	[ "$1" = dax ] || check "$1: pool restore" eval "pastectl pool restore /tmp/dump $pool.2 --size 64MiB && pastectl pool check $pool.2 && rm $pool.2"
}

# package_tests BACKING: those of pmem's own tests that are true of any backing,
# with their places for files on tmpfs and on disks replaced by this one.
package_tests() {
	mkdir -p "/$1/shm" "/$1/tmp"
	mount --bind "/$1/shm" /dev/shm
	mount --bind "/$1/tmp" /var/tmp
	check "$1: tests of package pmem" pmem.test -test.v -test.timeout=30m -test.run 'Append|Check$|Dump|Follow|Full|Grow|Headers|Killed|LiveReader|Lock|LogFull|OpenOrCreate|OpenWhile|Overwrites|Reopen|Roots$|Rotten|FileBacking'
	umount /dev/shm /var/tmp
	rm -rf "/$1/shm" "/$1/tmp"
}

# over_veth BACKING: an upload through a veth pair into a pool on it.
over_veth() {
	local pool server
	pool=$(place "$1")
	ip netns add client &&
		ip link add paste0 type veth peer name paste1 netns client &&
		ip addr add 198.51.100.1/24 dev paste0 && ip link set paste0 up &&
		ip -n client addr add 198.51.100.2/24 dev paste1 && ip -n client link set paste1 up || return
	pastectl pool create "$pool" --size 32MiB --force
	pastectl serve http --nic paste0 --listen 198.51.100.1:8080 --pool "$pool" >/tmp/served 2>&1 &
	server=$!
	ip netns exec client curl -sS --retry 30 --retry-all-errors --retry-delay 1 -T /tmp/upload http://198.51.100.1:8080/
	kill "$server"
	wait "$server"
	cat /tmp/served
	ip netns del client
	pastectl pool log "$pool" --record 1 --raw | cmp - /tmp/upload || return
	pastectl pool log "$pool" --verify && pastectl pool check "$pool" &&
		! grep -q ' 0 payloads received in place' /tmp/served
}

# serve NAME POOL PORT [FLAG...] starts a server and prints what it says when it is ready.
serve() {
	local name=$1 pool=$2 port=$3
	shift 3
	pastectl serve http --listen "10.0.2.15:$port" --pool "$pool" "$@" >"/tmp/serve-$name" 2>&1 &
	until [ -s "/tmp/serve-$name" ]; do sleep 0.1; done
	echo "vm: $name: $(head -n 1 "/tmp/serve-$name")"
}

# The NIC may still write to frames that it got from a process that is dead. The
# next process must not have stored anything there by then: no record is other
# than what was sent.
job_killed() {
	storage || { echo "vm: FAILED mount"; return; }
	ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up
	pastectl pool create /dev/dax0.0 --size 400MiB --force
	echo "vm: ready"
	local round
	for round in {1..20}; do
		serve "round $round" /dev/dax0.0 8080 --nic eth0 --durable-ack
		sleep 0.$((3 + round % 4))
		kill -KILL $! || echo "vm: FAILED round $round: the server has ended"
		wait $! 2>/dev/null
		tail -n +2 "/tmp/serve-round $round"
		! grep -q 'pool is full' "/tmp/serve-round $round" || echo "vm: FAILED round $round: the pool is full"
	done
	show "every record is what was sent" crash verify-uploads /dev/dax0.0
	check "killed: pool log" pastectl pool log /dev/dax0.0 --verify
	check "killed: pool check" pastectl pool check /dev/dax0.0
}

job_load() {
	storage || { echo "vm: FAILED mount"; return; }
	rm -f /*/pool
	ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up
	say ethtool -i eth0
	say pastectl attach eth0
	# A NIC that was in use when its process was killed is free for the next one.
	pastectl pool create /dev/dax0.0 --size 32MiB --frame-size 4096 --force
	serve "dax, frames of 4096" /dev/dax0.0 8080 --nic eth0
	kill -KILL $!
	wait $!
	pastectl pool create /dev/dax0.0 --size 128MiB --force
	serve dax /dev/dax0.0 8080 --nic eth0 --durable-ack
	serve ext4 /ext4/pool 8081 --pool-size 64MiB
	serve xfs /xfs/pool 8082 --pool-size 64MiB
	serve disk /disk/pool 8083 --pool-size 64MiB
	echo "vm: ready"
	# Until the machine is killed.
	while sleep 10; do
		say pastectl status eth0 >/tmp/status
		cat /tmp/status
		# Only the first line of a server that is well.
		tail -q -n +2 /tmp/serve-*
	done
}

job_recover() {
	storage || { echo "vm: FAILED mount"; return; }
	show "every acknowledged write is there" crash verify -book /vm/book dax=/dev/dax0.0 ext4=/ext4/pool xfs=/xfs/pool disk=/disk/pool
	local b
	for b in dax ext4 xfs disk; do
		check "$b: pool check" pastectl pool check "$(place "$b")"
	done
}
