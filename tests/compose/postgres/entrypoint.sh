#!/bin/sh
# As the official image: from root to the user postgres, a cluster where there is none, and a temporary
# server without TCP that makes the user and the database.
set -eu

if [ "$(id -u)" = 0 ]; then
    chown -R postgres:postgres "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?must be set}"
    user=${POSTGRES_USER:-postgres}
    umask 077
    printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
    initdb -D "$PGDATA" -U "$user" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256
    rm /tmp/password
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -w -o "-c listen_addresses='' -k /tmp" start
    [ "${POSTGRES_DB:-$user}" = postgres ] || createdb -h /tmp -U "$user" "${POSTGRES_DB:-$user}"
    pg_ctl -D "$PGDATA" -w -m fast stop
fi
exec "$@" -c listen_addresses='*'
