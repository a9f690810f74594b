#!/bin/sh
# Fetch a server and what it needs into a folder. Nothing is installed, no service starts, and no
# root is needed: Debian's and Ubuntu's packages are downloaded and unpacked.
#
# usage: fetch-packages.sh NAME FOLDER PROGRAM PACKAGE...
set -eu
umask 022

name=$1
folder=$2
program=$3  # below usr/sbin; it is there when all is
shift 3
wanted="$*"

if [ -x "$folder/usr/sbin/$program" ]; then
    echo "$folder is there already; delete it to fetch it again"
    exit 0
elif [ -e "$folder" ] && ! rmdir "$folder" 2>/dev/null; then
    echo "$0: $folder exists and holds something that is not $name" >&2
    exit 1
fi
for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || {
        echo "$0: no $tool: this way works on Debian and Ubuntu only." >&2
        echo "Install $name; its tests find it." >&2
        exit 1
    }
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch" "$folder.part"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$scratch/packages"

apt() {
    if [ "$(id -u)" = 0 ]; then
        set -- -o APT::Sandbox::User=root "$@"  # apt's own user may not enter the scratch folder
    fi
    if [ -d "$scratch/lists" ]; then
        set -- -o Dir::State::Lists="$scratch/lists" -o Dir::Cache="$scratch/cache" "$@"
    fi
    apt-get -q "$@"
}

# Libraries and tools that this machine lacks; a trial installation names them.
missing() {
    apt --simulate install --no-install-recommends $wanted 2>/dev/null |
        awk '$1 == "Inst" && $2 ~ /^(lib|lsof$|iproute2$|gawk$|procps$)/ &&
             $2 !~ /(^libperl|-perl$|^libdbi)/ { print $2 }' || true
}

download() {
    (cd "$scratch/packages" && apt download $wanted $(missing)) >"$scratch/log" 2>&1
}

if ! download; then
    # The machine's package lists are missing or too old. Updating them takes root, but apt-get also
    # works with lists of one's own.
    mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial"
    if ! apt update >"$scratch/log" 2>&1 || ! download; then
        cat "$scratch/log" >&2
        echo "$0: apt-get could not download $name (its words are above). If it knows no such" >&2
        echo "package, let root run: apt-get update" >&2
        exit 1
    fi
fi

rm -rf "$folder.part"
mkdir -p "$folder.part"
for package in "$scratch"/packages/*.deb; do
    dpkg-deb -x "$package" "$folder.part"
done
for place in bin sbin lib; do  # packages from before the merge into usr
    if [ -d "$folder.part/$place" ] && [ ! -L "$folder.part/$place" ]; then
        mkdir -p "$folder.part/usr/$place"
        cp -a "$folder.part/$place/." "$folder.part/usr/$place/"
        rm -rf "${folder:?}.part/$place"
    fi
done
rm -rf "${folder:?}.part/etc"
mkdir -p "$folder.part/usr/share"
find "$folder.part/usr/share" -mindepth 1 -maxdepth 1 ! -name mysql ! -name mariadb \
    -exec rm -rf {} +
chmod -R a+rX "$folder.part"  # a server of root's runs as somebody else
mv "$folder.part" "$folder"
echo "$name is in $folder ($(du -sh "$folder" | cut -f1))"
