# Sourced by the scripts beside it.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name=scripts/$(basename "$0")

say() { printf '\n=== %s\n' "$*"; }
die() { printf '%s: %s\n' "$name" "$*" >&2; exit 1; }

# Go may be installed where no PATH leads.
find_go() {
	command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin:$HOME/go/bin
	command -v go >/dev/null || die "Go is not installed: see https://go.dev/doc/install"
}

# become_root starts the script again by sudo, if that needs no password.
become_root() {
	[ "$(id -u)" -ne 0 ] || return 0
	command -v sudo >/dev/null && sudo -n true 2>/dev/null ||
		die "this needs root, for network namespaces and XDP: run it as root, or by sudo"
	exec sudo -n env PATH="$PATH" CI="${CI-}" GOPROXY="$(go env GOPROXY)" GOSUMDB="$(go env GOSUMDB)" \
		GOFLAGS="$(go env GOFLAGS)" GOTOOLCHAIN="$(go env GOTOOLCHAIN)" \
		EXPLORE="${EXPLORE-}" EXPLORE_MINUTES="${EXPLORE_MINUTES-}" EXPLORE_WORKERS="${EXPLORE_WORKERS-}" "$0" "$@"
}

# install_missing installs the packages of what is missing: commands, or files
# by their whole path. command=package ...
install_missing() {
	local pair packages=()
	for pair; do
		command -v "${pair%%=*}" >/dev/null || [ -e "${pair%%=*}" ] || packages+=("${pair#*=}")
	done
	[ ${#packages[@]} -gt 0 ] || return 0
	command -v apt-get >/dev/null || die "install these first, there is no apt-get to do it: ${packages[*]}"
	say "install ${packages[*]}"
	export DEBIAN_FRONTEND=noninteractive
	apt-get install -qq -y --no-install-recommends "${packages[@]}" </dev/null ||
		{ apt-get update -qq </dev/null && apt-get install -qq -y --no-install-recommends "${packages[@]}" </dev/null; } ||
		die "could not install: ${packages[*]}"
}

# temporary makes a directory, $tmp, that goes with the script. What a killed
# run left is removed first.
temporary() {
	local old
	for old in "${TMPDIR:-/tmp}"/"$1".*.[0-9]*; do
		[ -O "$old" ] && [ ! -d "/proc/${old##*.}" ] && rm -rf "$old"
	done
	tmp=$(mktemp -d "${TMPDIR:-/tmp}/$1.XXXXXX") && mv "$tmp" "$tmp.$$" && tmp=$tmp.$$
	trap 'status=$?; rm -rf "$tmp"; exit $status' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
}

# git, which go build asks for the revision, refuses a checkout of another user.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=$root
PATH=$PATH:/usr/sbin:/sbin
