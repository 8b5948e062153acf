# shellcheck shell=bash
# Shared by the tests that run the service from its image (sourced, never run, after lib.sh): the base
# images, the image of the service, and how a test says what it found. Uses `work`, a folder of the test.

step() { printf '\n=== %s\n' "$*"; }
fail() {
    warn "not as expected: $*"
    exit 1
}
# expect <what> <expected> <actual>
expect() {
    [[ $2 == "$3" ]] || fail "$1 is \"$3\", should be \"$2\""
    say "ok: $1 is ${2:-nothing}"
}

# needs_engine: a Docker engine that answers, and can build.
needs_engine() {
    [[ $(uname -s) == Linux && $engine_host == unix://* ]] || die "needs a Docker engine at a socket of this machine, not $engine_host"
    engine_answers || die "no Docker engine answers at $engine_host: scripts/setup starts one"
    docker network inspect bridge >/dev/null 2>&1 || die "the engine at $engine_host has no bridge network: iptables is missing, or does not work here"
}

# Whether the base images can be made here.
is_debian() { ((EUID == 0)) && have apt-get && [[ $(. /etc/os-release && echo "$ID") == debian ]]; }

# install_packages <package …>
install_packages() {
    (($# > 0)) || return 0
    say "installing $*"
    mkdir -p "$dev_dir"
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; } \
        >"$dev_dir/apt-images.log" 2>&1 || die "cannot install $*: $dev_dir/apt-images.log says why"
}

has_image() { docker image inspect "$1" >/dev/null 2>&1; }

# make_debian <image>: the minimal system of this machine's release, as small as the official slim image.
make_debian() {
    local release mirror tree
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # shellcheck disable=SC2016  # these are of apt
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        sed -n "s/ $release main\$//p" | sed -n 1p)
    mirror=${mirror:-http://deb.debian.org/debian}
    # shellcheck disable=SC2154  # of the test
    tree=$work/debian
    say "making $1 by debootstrap from $mirror"
    timeout 300 debootstrap --variant=minbase "$release" "$tree" "$mirror" >"$work/debootstrap.log" 2>&1 || {
        tail -n 15 "$work/debootstrap.log" >&2
        die "debootstrap failed"
    }
    tar -C "$tree" --exclude='./dev/*' --exclude='./etc/resolv.conf' --exclude='./var/cache/apt/*' \
        --exclude='./var/lib/apt/lists/*' --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' \
        --exclude='./usr/share/locale/*' -c . | docker import -c 'CMD ["bash"]' - "$1" >/dev/null
    rm -rf "$tree"
}

# base_image: sets `debian_image`, and makes it where it can be made here: no registry is asked then.
base_image() {
    debian_image=debian:bookworm-slim
    if is_debian; then
        debian_image=supercargo-test/debian:$(. /etc/os-release && echo "$VERSION_CODENAME")
        has_image "$debian_image" || make_debian "$debian_image"
    fi
}

# build <image> <folder> <argument …>: on the network of the host, where the mirror is reached.
build() {
    local image=$1 folder=$2
    shift 2
    say "building $image"
    timeout 300 docker build --network=host -t "$image" "$@" "$folder" >"$work/build.log" 2>&1 || {
        tail -n 20 "$work/build.log" >&2
        die "$image can't be built"
    }
}

# build_service <image> <program>: deploy/docker/Dockerfile around a program that is built, without what only
# debuggers read.
build_service() {
    mkdir "$work/program"
    strip --strip-debug -o "$work/program/supercargo" "$2" 2>/dev/null || cp "$2" "$work/program/supercargo"
    build "$1" "$work/program" -f "$root/deploy/docker/Dockerfile" --target prebuilt --build-arg "DEBIAN_IMAGE=$debian_image"
    say "the image has $(($(docker image inspect -f '{{.Size}}' "$1") / 1000000)) MB, $(($(stat -c %s "$work/program/supercargo") / 1000000)) of them the program"
}
