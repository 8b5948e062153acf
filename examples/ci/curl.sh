#!/bin/sh
# Runs a task with nothing but curl: prints its log as it comes, and exits with 22 if the task failed.
#
#     SUPERCARGO_URL=http://127.0.0.1:7070 SUPERCARGO_TOKEN=… examples/ci/curl.sh examples/tasks/hello.json
set -eu
api() { curl -sS --fail-with-body -H "Authorization: Bearer $SUPERCARGO_TOKEN" "$@"; }
tasks=$SUPERCARGO_URL/api/v1/tasks

# The same key is the same task: a request whose answer was lost can be sent again.
key="curl-${GITHUB_RUN_ID:-${CI_JOB_ID:-$(date +%s)-$$}}-${GITHUB_RUN_ATTEMPT:-1}"
task=$(api --retry 5 --retry-connrefused "$tasks" -d "@$1" \
    -H 'Content-Type: application/json' -H "Idempotency-Key: $key")
id=$(printf '%s' "$task" | sed 's/^{"id":"\([^"]*\).*/\1/')
echo "task $id" >&2

api -N "$tasks/$id/logs?follow=true"

# 200: it succeeded. 424: it failed, and the body says why. 303, which -L follows: it is not over.
if ! end=$(api -L --max-redirs -1 "$tasks/$id?wait=50s"); then
    printf '%s\n' "$end" >&2
    exit 22
fi
