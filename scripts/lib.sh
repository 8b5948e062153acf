# Shared by the scripts in this folder (sourced, never run): where development state lives, how to
# print progress, how to ask the Docker engine, how to tell whether a process is still the one meant.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# Logs, pid files and other things that `make clean-dev` removes.
dev_dir=${SUPERCARGO_DEV_DIR:-$root/.dev}

say() { printf '%s: %s\n' "${0##*/}" "$*"; }
warn() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { warn "$@"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# is_process <pid> <name>: whether that pid is alive and runs that program.
is_process() {
    [[ $1 =~ ^[0-9]+$ ]] || return 1
    [[ $(ps -o comm= -p "$1" 2>/dev/null) == "$2"* ]]
}

# wait_until <seconds> <command …>: polls the command until it succeeds; fails at the deadline.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

default_socket=/var/run/docker.sock
engine_host=${DOCKER_HOST:-unix://$default_socket}

# engine_curl <curl arguments …> <path>: asks the engine's HTTP API without the docker command, whose
# own API version may be too new for the engine. Fails with 64 where curl can't speak to the address.
engine_curl() {
    local path=${*: -1} arguments=("${@:1:$#-1}")
    case $engine_host in
        unix://*) curl -sS --fail-with-body --unix-socket "${engine_host#unix://}" "${arguments[@]}" "http://engine$path" ;;
        tcp://*) [[ -z ${DOCKER_TLS_VERIFY:-} ]] || return 64
                 curl -sS --fail-with-body "${arguments[@]}" "http://${engine_host#tcp://}$path" ;;
        http://*) curl -sS --fail-with-body "${arguments[@]}" "$engine_host$path" ;;
        *) return 64 ;;
    esac
}
engine_answers() {
    local status=0
    engine_curl --max-time 5 /_ping >/dev/null 2>&1 || status=$?
    if ((status == 64)); then docker version >/dev/null 2>&1; else ((status == 0)); fi
}
