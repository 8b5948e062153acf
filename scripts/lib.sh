# shellcheck shell=bash
# Shared by the scripts in this folder (sourced, never run): where development state lives, how to
# print progress, how to ask the Docker engine, how to run a throwaway Postgres.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# Logs, pid files and data; `make clean-dev` removes it.
dev_dir=${SUPERCARGO_DEV_DIR:-$root/.dev}
# Where dockerd and iptables are, which is not in every user's PATH.
PATH=$PATH:/usr/sbin:/sbin

say() { printf '%s: %s\n' "${0##*/}" "$*"; }
warn() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    warn "$@"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# is_process <pid> <name>: whether that pid is alive and runs that program (pids are used again).
is_process() {
    local name
    [[ $1 =~ ^[0-9]+$ ]] || return 1
    if [[ -d /proc/self ]]; then
        name=$(cat "/proc/$1/comm" 2>/dev/null) || return 1
    else
        name=$(ps -o comm= -p "$1" 2>/dev/null) || return 1
    fi
    [[ ${name##*/} == "$2"* ]]
}

is_gone() { ! is_process "$@"; }

# wait_until <seconds> <command …>: tries the command until it succeeds; fails at the deadline.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# --- Docker engine ---

default_socket=/var/run/docker.sock
engine_host=${DOCKER_HOST:-unix://$default_socket}

# engine_curl <curl arguments …> <path>: asks the engine's HTTP API without the docker command, whose
# own API version may be too new for the engine. Fails with 64 where curl can't speak to the address.
engine_curl() {
    local path=${*: -1} arguments=("${@:1:$#-1}")
    have curl || return 64
    case $engine_host in
        unix://*) curl -sS --fail-with-body --unix-socket "${engine_host#unix://}" "${arguments[@]}" "http://engine$path" ;;
        http://* | tcp://*)
            [[ -z ${DOCKER_TLS_VERIFY:-} ]] || return 64
            curl -sS --fail-with-body "${arguments[@]}" "http://${engine_host#*://}$path"
            ;;
        *) return 64 ;;
    esac
}

engine_answers() {
    local status=0
    engine_curl --max-time 5 /_ping >/dev/null 2>&1 || status=$?
    if ((status == 64)); then docker version >/dev/null 2>&1; else ((status == 0)); fi
}

# --- Postgres ---

# The folder of the newest server programs, as the service itself looks for them.
postgres_bin() {
    local dir version best='' best_version=0
    local IFS=:
    for dir in $PATH /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
        /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin /home/linuxbrew/.linuxbrew/opt/postgresql*/bin; do
        [[ -x $dir/initdb && -x $dir/postgres ]] || continue
        version=$("$dir/postgres" --version)
        version=${version#*(PostgreSQL) }
        version=${version%%[!0-9]*}
        if ((version > best_version)); then
            best=$dir best_version=$version
        fi
    done
    [[ -n $best ]] && printf '%s\n' "$best"
}

# Postgres refuses to run as root: who runs it then.
database_user() {
    if ((EUID != 0)); then
        id -un
        return
    fi
    local name
    for name in postgres _postgres nobody; do
        if id -u "$name" >/dev/null 2>&1; then
            printf '%s\n' "$name"
            return
        fi
    done
    return 1
}

# as_database_user <command …>: without root's groups, and in a folder that this user may enter.
as_database_user() {
    if ((EUID != 0)); then
        (cd / && "$@")
        return
    fi
    local name
    name=$(database_user) || die "no user postgres or nobody to run Postgres as: useradd --system postgres"
    (cd / && setpriv --reuid="$(id -u "$name")" --regid="$(id -g "$name")" --clear-groups "$@")
}

# Not in TMPDIR: a socket's path must be short.
throwaway_prefix=/tmp/supercargo-pg

# throwaway_postgres <setting …>: starts a Postgres that is gone with this script, whose data may be
# lost at any time; sets `throwaway` (its folder) and `throwaway_url`. Sets an EXIT trap.
throwaway_postgres() {
    local bin setting options=''
    bin=$(postgres_bin) || die "no Postgres server programs: run scripts/setup, or apt-get install postgresql (brew install postgresql)"
    remove_left_over_postgres
    throwaway=$(mktemp -d "$throwaway_prefix.XXXXXX")
    trap stop_throwaway_postgres EXIT
    # Not by way of the EXIT trap: bash may lose it when a Ctrl-C lands as a pipeline starts.
    trap 'trap - EXIT; stop_throwaway_postgres; exit 130' INT
    trap 'trap - EXIT; stop_throwaway_postgres; exit 143' TERM HUP
    printf '%s\n' $$ >"$throwaway/owner"
    mkdir -m 0700 "$throwaway"/{data,socket}
    chmod 0711 "$throwaway"
    : >"$throwaway/log"
    if ((EUID == 0)); then
        chown "$(database_user)" "$throwaway"/{data,socket,log}
    fi
    as_database_user env TZ=UTC "$bin/initdb" -D "$throwaway/data" -U postgres --auth=trust --locale=C --encoding=UTF8 --no-sync >/dev/null
    for setting in listen_addresses= fsync=off synchronous_commit=off full_page_writes=off "$@"; do
        options+=" -c $setting"
    done
    # pg_ctl gives it a session of its own, so Ctrl-C reaches this script first.
    if ! as_database_user "$bin/pg_ctl" -D "$throwaway/data" -l "$throwaway/log" -w -t 60 -o "-k $throwaway/socket$options" start >/dev/null; then
        tail -n 15 "$throwaway/log" >&2
        die "the throwaway Postgres does not start"
    fi
    # shellcheck disable=SC2034  # for the script that called
    throwaway_url="postgres:///postgres?host=$throwaway/socket&port=5432&user=postgres&sslmode=disable"
}

stop_throwaway_postgres() {
    [[ -n ${throwaway:-} ]] || return 0
    stop_cluster "$throwaway/data" immediate
    rm -rf "$throwaway"
    throwaway=
}

# stop_cluster <data folder> <fast|immediate>: ends the postmaster on that cluster, if there is one.
stop_cluster() {
    local pid
    pid=$(head -n 1 "$1/postmaster.pid" 2>/dev/null) || return 0
    is_process "$pid" postgres || return 0
    if [[ $2 == fast ]]; then kill -INT "$pid"; else kill -QUIT "$pid"; fi
    wait_until 30 is_gone "$pid" postgres || die "the Postgres with pid $pid in $1 does not end"
}

# What a script left that was killed.
remove_left_over_postgres() {
    local dir
    for dir in "$throwaway_prefix".*; do
        [[ -d $dir && -O $dir && ! -L $dir && -s $dir/owner ]] || continue
        kill -0 "$(<"$dir/owner")" 2>/dev/null && continue
        stop_cluster "$dir/data" immediate
        rm -rf "$dir"
    done
}

# The data directory of `make run` and `make demo`: in the checkout, unless the database user may not
# go there (as in root's home); then a folder of its own per checkout.
data_dir() {
    mkdir -p "$dev_dir/data"
    if ((EUID != 0)); then
        printf '%s\n' "$dev_dir/data"
        return
    fi
    chmod 0711 "$dev_dir/data"
    if as_database_user test -x "$dev_dir/data"; then
        printf '%s\n' "$dev_dir/data"
        return
    fi
    local dir
    dir=$(other_data_dir)
    # Anyone can make folders there.
    mkdir -m 0711 "$dir" 2>/dev/null || [[ -d $dir && -O $dir && ! -L $dir ]] ||
        die "$dir belongs to somebody else: remove it, or move the checkout to a folder that everyone may enter"
    printf '%s\n' "$dir"
}
other_data_dir() { printf '/var/tmp/supercargo-dev-%s-%s\n' "$EUID" "$(printf %s "$root" | cksum | cut -d ' ' -f 1)"; }
