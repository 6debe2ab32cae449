#!/bin/sh
# Installs observability-upgrade from an unpacked release, or takes it away again.
# Doing either again changes nothing. A run that is at work goes on with the program
# it began with: files are replaced by rename, and no unit of a run is touched.
set -eu

name=observability-upgrade
prefix=/usr/local
destdir=
action=install

usage() {
	cat <<-EOF
		usage: sh install.sh [--prefix=/usr/local] [--destdir=DIR] [--uninstall]

		--prefix     below which programs, manual pages and completions go
		--destdir    a directory that stands for /, for images and packages; systemd is not told
		--uninstall  take away what was installed; configuration, state and backups stay
	EOF
}

fail() {
	echo "install.sh: $1" >&2
	exit 1
}

for arg in "$@"; do
	case $arg in
	--prefix=/*) prefix=${arg#--prefix=} ;;
	--destdir=/*) destdir=${arg#--destdir=} ;;
	--uninstall) action=uninstall ;;
	-h | --help)
		usage
		exit 0
		;;
	*)
		echo "install.sh: $arg is not known, or no absolute path" >&2
		usage >&2
		exit 2
		;;
	esac
done
prefix=${prefix%/}
case $prefix$destdir in
*[!A-Za-z0-9/._+-]*) fail "--prefix and --destdir may have letters, digits and / . _ + - only: they become part of unit files" ;;
esac

# systemd looks for units below /usr and /usr/local, and else in /etc.
case $prefix in
'' | /usr) prefix=/usr units=/usr/lib/systemd/system ;;
/usr/local) units=/usr/local/lib/systemd/system ;;
*) units=/etc/systemd/system ;;
esac
bin=$prefix/bin
program=$destdir$bin/$name
list=$prefix/share/$name/installed

systemd() { [ -z "$destdir" ] && [ -d /run/systemd/system ]; }

if [ -z "$destdir" ]; then
	[ "$(id -u)" -eq 0 ] || fail "it must be root who installs: sudo sh install.sh $*"
	if command -v dpkg >/dev/null && owner=$(dpkg -S "$bin/$name" 2>/dev/null) || command -v rpm >/dev/null && owner=$(rpm -qf "$bin/$name" 2>/dev/null); then
		fail "$bin/$name belongs to a package ($owner). Next: upgrade or remove that package"
	fi
fi

# remove_listed takes away the files of a list, and directories that are empty then.
remove_listed() {
	while read -r file; do
		rm -f "$destdir$file"
		dir=$(dirname "$file")
		case $dir in
		*/$name*) rmdir "$destdir$dir" 2>/dev/null || true ;;
		esac
	done
}

if [ $action = uninstall ]; then
	[ -e "$destdir$list" ] || {
		echo "There is nothing to take away: $destdir$list does not exist."
		exit 0
	}
	# Without the program nothing could finish a run that was cut off, or take back one
	# at work. `recover` finishes the first; while there is the second it refuses, and
	# says which process that is.
	if [ -z "$destdir" ] && [ -x "$program" ] && "$program" version >/dev/null 2>&1 && ! "$program" recover --quiet >/dev/null; then
		fail "$name is not taken away: without it nothing could finish this run or take it back"
	fi
	if systemd; then
		systemctl --quiet disable --now $name.timer 2>/dev/null || true
		systemctl --quiet disable --now $name-check.timer $name-serve.socket $name-serve.service 2>/dev/null || true
		systemctl --quiet disable $name-recover.service || true
	fi
	cp "$destdir$list" "${TMPDIR:-/tmp}/$name.installed.$$"
	remove_listed <"${TMPDIR:-/tmp}/$name.installed.$$"
	rm -f "${TMPDIR:-/tmp}/$name.installed.$$"
	systemd && systemctl daemon-reload
	echo "$name was taken away. Kept: /etc/observability, /var/lib/observability, /var/cache/observability, /var/backups/observability."
	exit 0
fi

cd "$(dirname "$0")"
[ -e SHA256SUMS ] || fail "expected SHA256SUMS beside it, found none: unpack the whole archive and start it from there"
if ! sums=$(sha256sum --check --quiet SHA256SUMS 2>&1); then
	fail "files are not those of the release: $sums. Next: download the archive again and verify it"
fi
./$name version >/dev/null || fail "./$name cannot be run here: is the archive one for $(uname -m)?"

new=$(mktemp "${TMPDIR:-/tmp}/$name.XXXXXX")
trap 'rm -f "$new"' EXIT

# place FILE DIR MODE [NAME] puts a file into a directory, by rename.
place() {
	mkdir -p "$destdir$2"
	to=$2/${4:-$(basename "$1")}
	echo "$to" >>"$new"
	if ! cmp -s "$1" "$destdir$to"; then
		cp "$1" "$destdir$to.$$"
		[ "$1" != $name ] || sync "$destdir$to.$$"
		mv -f "$destdir$to.$$" "$destdir$to"
	fi
	chmod "$3" "$destdir$to"
}

# link TARGET PATH
link() {
	echo "$2" >>"$new"
	[ "$(readlink "$destdir$2" || true)" = "$1" ] || ln -sf "$1" "$destdir$2"
}

place $name "$bin" 755
link $name "$bin/observability-rollback"
link $name "$bin/upgrade-rollback"
for section in 1 5; do
	for file in "man/man$section/"*; do place "$file" "$prefix/share/man/man$section" 644; done
done
link $name-rollback.1 "$prefix/share/man/man1/observability-rollback.1"
link $name-rollback.1 "$prefix/share/man/man1/upgrade-rollback.1"
place completions/$name.bash "$prefix/share/bash-completion/completions" 644 $name
link $name "$prefix/share/bash-completion/completions/observability-rollback"
link $name "$prefix/share/bash-completion/completions/upgrade-rollback"
place completions/_$name "$prefix/share/zsh/site-functions" 644
for file in completions/*.fish; do place "$file" "$prefix/share/fish/vendor_completions.d" 644; done
for file in LICENSE README.md CHANGELOG.md THIRD-PARTY-NOTICES.txt; do place $file "$prefix/share/doc/$name" 644; done
for file in docs/*; do place "$file" "$prefix/share/doc/$name/docs" 644; done
unit=$(mktemp "${TMPDIR:-/tmp}/$name.XXXXXX")
trap 'rm -f "$new" "$unit"' EXIT
for file in systemd/*; do
	sed "s|/usr/local/bin/$name|$bin/$name|g" "$file" >"$unit"
	place "$unit" "$units" 644 "$(basename "$file")"
done
place sysusers.conf "$prefix/lib/sysusers.d" 644 $name.conf

mkdir -p "$destdir/etc/observability/components.d" "$destdir/etc/observability/keys" "$destdir/etc/observability/secrets"
chmod 700 "$destdir/etc/observability/secrets"
policy=$destdir/etc/observability/upgrade-policy.yaml
if [ ! -e "$policy" ]; then
	cp upgrade-policy.yaml "$policy"
	chmod 644 "$policy"
fi

# What an older version installed and this one does not have.
echo "$list" >>"$new"
first=yes
if [ -e "$destdir$list" ]; then
	first=no
	grep -Fxv -f "$new" "$destdir$list" | remove_listed
fi
if ! cmp -s "$new" "$destdir$list"; then
	mkdir -p "$(dirname "$destdir$list")"
	cp "$new" "$destdir$list.$$"
	chmod 644 "$destdir$list.$$"
	mv -f "$destdir$list.$$" "$destdir$list"
fi

if systemd; then
	if command -v systemd-sysusers >/dev/null; then systemd-sysusers "$prefix/lib/sysusers.d/$name.conf" || true; fi
	systemctl daemon-reload
	# A person may have disabled it since.
	[ $first = no ] || systemctl --quiet enable $name-recover.service
	systemctl try-restart $name-serve.service
fi
echo "$("$program" version) is installed in $destdir$bin."
