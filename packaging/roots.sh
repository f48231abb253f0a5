#!/bin/bash
# What packaging/dev and packaging/build share: telling their steps, the distribution's packages, and root file
# systems of Debian, made once and then only copied from. To be sourced; wants $work, a directory that goes.
#
# Rule: a root in the cache is never written to, and never needed: a cache that is empty, old or read-only in
# part costs time and nothing else. Its key is its list of packages, so that a changed list makes a new root.
# shellcheck shell=bash
cache=/var/cache/sysresp-dev
program=${0##*/}

# For packages and their gates: the tools of both formats, and what the product itself needs, so that its tests
# run in the build and the rpm in the root.
build_packages=debhelper,dh-python,pybuild-plugin-pyproject,python3-all,python3-hatchling,python3-jinja2
build_packages+=,python3-pystemd,python3-tomli-w,python3-typer,python3-pytest,python3-hypothesis
build_packages+=,rpm,dnf,createrepo-c,rpmlint,systemd,dbus
declare -A build_extra=([bookworm]=piuparts [trixie]=lintian)
# What a package pulls in when it is installed, and what the tests of an installed one look at it with: these
# are only downloaded into a fresh root, because what is booted has no network.
fresh_packages=systemd,dbus
fresh_downloads="python3-jinja2 python3-pystemd python3-tomli-w python3-typer polkitd bash-completion zsh fish
	supervisor python3-prometheus-client"

say() { printf '%s\n' "$program: $*" >&2; }

die() {
	say "$*"
	exit 1
}

# step NAME COMMAND...: run it and print its seconds
step() {
	local name=$1 start=$EPOCHREALTIME rc=0
	shift
	"$@" || rc=$?
	LC_ALL=C awk -v p="$program" -v a="$start" -v b="$EPOCHREALTIME" -v n="$name" -v rc="$rc" \
		'BEGIN { printf "%s: %-28s %6.1f s%s\n", p, n, b - a, rc ? "  exit status " rc : "" }' >&2
	return "$rc"
}

missing_packages() {
	local name
	for name in "$@"; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || echo "$name"
	done
}

install_packages() {
	local -a missing
	mapfile -t missing < <(missing_packages "$@")
	((${#missing[@]})) || return 0
	say "installing ${missing[*]}"
	# shellcheck disable=SC2154 # the caller's
	local log=$work/apt.log
	if ! { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
		--no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
		cat "$log" >&2
		die "cannot install ${missing[*]}"
	fi
}

# The archive that this host's own packages come from, so that mirrors and proxies are respected.
debian_archive() {
	local uri
	# shellcheck disable=SC2016 # apt expands these
	uri=$(apt-get indextargets --format '$(REPO_URI) $(LABEL) $(COMPONENT)' 'Created-By: Packages' |
		awk '$2 == "Debian" && $3 == "main" { print $1; exit }')
	[[ $uri ]] || die "cannot find Debian's archive in this host's apt sources; run apt-get update"
	echo "$uri"
}

# make_root NAME [PACKAGES]: print the path of a root file system, which is made if there is none. NAME is a
# suite (then with its packages), build-SUITE, fresh-SUITE, or bare-SUITE, which only boots.
make_root() {
	local name=$1 packages=${2:-} suite=${1##*-} key dir
	local -a options=(--aptopt='APT::Install-Recommends "false"')
	case $name in
	build-*)
		packages=$build_packages,${build_extra[$suite]}
		options+=(--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*')
		;;
	bare-*) packages=systemd,dbus ;;
	fresh-*)
		# As a new installation has it: apt's own defaults, documentation, the package lists.
		packages=$fresh_packages
		# shellcheck disable=SC2016 # mmdebstrap's $1, the root
		options+=(--skip=cleanup/apt --customize-hook='rm "$1"/etc/apt/apt.conf.d/99mmdebstrap'
			--customize-hook='chroot "$1" env -u APT_CONFIG \
				apt-get -qq -o APT::Install-Recommends=true install -y --download-only '"${fresh_downloads//[$'\n\t']/ }")
		;;
	*) options+=(--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*') ;;
	esac
	case $name in
	fresh-*) key="$name $packages $fresh_downloads" ;;
	*) key="$name $packages" ;;
	esac
	key=$(echo "$key" | sha256sum | cut -c1-12)
	dir=$cache/$name-$key
	if [[ ! -d $dir ]]; then
		install_packages mmdebstrap debian-archive-keyring
		say "making the root file system $dir"
		mkdir -p "$cache"
		find "$cache" -maxdepth 1 -name "$name-*.part" -mmin +60 -exec rm -rf {} +
		local part
		part=$(mktemp -d "$dir.XXXXXX.part")
		TMPDIR=$cache mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
			"${options[@]}" "$suite" "$part" "$(debian_archive)" >&2 || {
			rm -rf "$part"
			die "cannot make the root file system of $name"
		}
		chmod 755 "$part"
		# Another run may have been faster: then its root is as good as ours.
		mv -T "$part" "$dir" 2>/dev/null || rm -rf "$part"
	fi
	echo "$dir"
}

# make_prometheus: print the directory of the programs of Debian's Prometheus, which are unpacked if there are
# none: its package would start a daemon.
make_prometheus() {
	local dir
	dir=$cache/prometheus-$(dpkg --print-architecture)
	if [[ ! -x $dir/promtool ]]; then
		say "unpacking Prometheus to $dir"
		mkdir -p "$cache"
		local part
		part=$(mktemp -d "$dir.XXXXXX.part")
		(
			cd "$part"
			apt-get -qq download prometheus 2>&1 || { apt-get -qq update && apt-get -qq download prometheus; }
			dpkg -x prometheus_*.deb .
		) >"$work/prometheus.log" 2>&1 || {
			cat "$work/prometheus.log" >&2
			rm -rf "$part"
			die "cannot get Prometheus"
		}
		chmod 755 "$part/usr/bin"
		mv -T "$part/usr/bin" "$dir" 2>/dev/null || true
		rm -rf "$part"
	fi
	echo "$dir"
}

# in_root ROOT IN OUT COMMAND...: run it in a throwaway copy of the root, without network ($network); IN is at /in,
# read-only, and OUT at /out. Of the environment only what a build may depend on is passed on.
in_root() {
	local stage
	local -a isolate=(--net)
	if [[ ${network:-} ]]; then isolate=(); fi
	stage=$(mktemp -d "$work/root.XXXXXX")
	# shellcheck disable=SC2016 # the inner shell's
	unshare --mount --propagation private "${isolate[@]}" --ipc --uts --pid --fork --kill-child -- /bin/bash -euc '
		umask 022
		stage=$1 lower=$2 in=$3 out=$4
		shift 4
		mount -t tmpfs -o mode=755 tmpfs "$stage"
		mkdir "$stage"/{upper,work,root}
		mount -t overlay -o "lowerdir=$lower,upperdir=$stage/upper,workdir=$stage/work" overlay "$stage/root"
		mkdir "$stage"/root/{in,out}
		mount --bind "$in" "$stage/root/in"
		mount -o remount,bind,ro "$stage/root/in"
		mount --bind "$out" "$stage/root/out"
		mount -t proc proc "$stage/root/proc"
		mount --rbind /dev "$stage/root/dev"
		exec chroot "$stage/root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
			LC_ALL="${LC_ALL:-C.UTF-8}" TZ="${TZ:-UTC}" SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}" \
			DEB_BUILD_OPTIONS="${DEB_BUILD_OPTIONS:-}" "$@"
	' bash "$stage" "$@"
}
