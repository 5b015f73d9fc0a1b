#!/usr/bin/env bash
# Shows on a running gateway that a client's limit holds: creates a `free` client (10 requests a minute), enqueues up to
# the 429, passes it with an override, deletes the client. One PASS or FAIL line a step; exits 1 if one failed.
#
# GATEWAY_URL (http://127.0.0.1:8080), ADMIN_API_KEY (sent as X-Admin-Key where set) and TARGET_URL come from the
# environment. The tasks are an hour away and are cancelled at the end, so no call is ever made to TARGET_URL.
# Needs bash and curl.
# shellcheck disable=SC2317  # some functions are called by name only: from the trap, and by check
set -uo pipefail

GATEWAY_URL=${GATEWAY_URL:-http://127.0.0.1:8080}
GATEWAY_URL=${GATEWAY_URL%/}
TARGET_URL=${TARGET_URL:-http://target.invalid/}
LIMIT=10
# A client of its own for each run: a window that was used a moment ago would spoil the count.
CLIENT="rate-limit-test-$$-$RANDOM"

failed=0
status=
body=
headers=$(mktemp)

# The key goes through a file descriptor: an argument could be read in the list of processes.
request_headers() {
    printf 'Content-Type: application/json\n'
    if [[ -n ${ADMIN_API_KEY:-} && $1 == /admin/* ]]; then printf 'X-Admin-Key: %s\n' "$ADMIN_API_KEY"; fi
}

# call METHOD PATH [BODY]: sets $status (000 where nobody answered), $body and the file $headers.
call() {
    local answer
    answer=$(curl -sS -m 10 -D "$headers" -w '\n%{http_code}' -X "$1" -H @<(request_headers "$2") \
        ${3:+--data "$3"} "$GATEWAY_URL$2" 2>&1)
    status=${answer##*$'\n'}
    body=${answer%$'\n'*}
}

# check WHAT CONDITION…: the condition is a command.
check() {
    local what=$1
    shift
    if "$@"; then
        echo "PASS  $what"
    else
        echo "FAIL  $what (last answer: $status $body)"
        failed=1
    fi
}

clean_up() {
    call DELETE "/admin/clients/delete?client_id=$CLIENT&cancel_tasks=true"
    rm -f "$headers"
}
trap clean_up EXIT

is() { [[ $status == "$1" ]]; }
says() { [[ $body == *"$1"* ]]; }
has_retry_after() { grep -qiE '^retry-after: *[1-9]' "$headers"; }

task="{\"url\": \"$TARGET_URL\", \"body\": \"{}\"}"
enqueue() { call POST /v1/enqueue "{\"client_id\": \"$CLIENT\", \"delay\": 3600, \"task\": $task${1:-}}"; }

call GET /livez
if ! is 200; then
    echo "FAIL  no gateway answers at $GATEWAY_URL: $body"
    exit 1
fi

call PUT /admin/clients/set "{\"client_id\": \"$CLIENT\", \"tier\": \"free\"}"
check "a client of tier free is created" is 200
check "it may make $LIMIT requests a minute" says "$LIMIT"

admitted=0
for ((i = 0; i < LIMIT; i++)); do
    enqueue
    if is 201; then admitted=$((admitted + 1)); fi
done
check "$admitted of $LIMIT requests are admitted" test "$admitted" -eq "$LIMIT"

enqueue
check "request $((LIMIT + 1)) is refused with 429" is 429
check "it says: Rate limit exceeded" says "Rate limit exceeded"
check "it says when to come back (Retry-After)" has_retry_after

enqueue ', "rate_limit": {"max_concurrent": 2, "requests_per_min": 50}'
check "a request with an override of 50 a minute is admitted" is 201

enqueue
check "the next one without it is refused again" is 429

call DELETE "/admin/clients/delete?client_id=$CLIENT&cancel_tasks=true"
check "the client is deleted" is 204
call GET "/admin/clients/get?client_id=$CLIENT"
check "it is gone" is 404

if ((failed)); then echo "FAIL"; else echo "PASS"; fi
exit "$failed"
