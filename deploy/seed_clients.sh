#!/usr/bin/env bash
# Creates or updates clients from lines of `id:tier`, through the operators' API.
#
#   deploy/seed_clients.sh clients.txt          or          printf 'acme:premium\n' | deploy/seed_clients.sh
#
# Empty lines and lines that start with # are skipped. GATEWAY_URL (http://127.0.0.1:8080) says where the gateway is,
# ADMIN_API_KEY is sent as X-Admin-Key where it is set. Exits 0 when every line was taken, 1 when one was not, 2 when it
# was called wrongly.
set -euo pipefail

GATEWAY_URL=${GATEWAY_URL:-http://127.0.0.1:8080}
GATEWAY_URL=${GATEWAY_URL%/}

if (($# > 1)) || [[ ${1:-} == -h || ${1:-} == --help ]]; then
    echo "usage: $0 [FILE]    lines of id:tier, from FILE or standard input" >&2
    exit 2
fi
if (($# == 1)) && [[ ! -r $1 ]]; then
    echo "$1: there is no such file, or it cannot be read" >&2
    exit 2
fi

# The key goes through a file descriptor: an argument could be read in the list of processes.
admin_headers() {
    printf 'Content-Type: application/json\n'
    if [[ -n ${ADMIN_API_KEY:-} ]]; then printf 'X-Admin-Key: %s\n' "$ADMIN_API_KEY"; fi
}

# Prints why a client was not taken, nothing where it was.
set_client() {
    local answer status
    answer=$(curl -sS -m 10 -w '\n%{http_code}' -X PUT -H @<(admin_headers) \
        --data "{\"client_id\": \"$1\", \"tier\": \"$2\"}" "$GATEWAY_URL/admin/clients/set" 2>&1) || true
    status=${answer##*$'\n'}
    [[ $status == 200 ]] || printf '%s' "${answer//$'\n'/ }"
}

seed() {
    local line id tier problem number=0 done=0 failed=0
    while IFS= read -r line || [[ -n $line ]]; do
        number=$((number + 1))
        line=${line#"${line%%[![:space:]]*}"}
        line=${line%"${line##*[![:space:]]}"}
        if [[ -z $line || $line == \#* ]]; then continue; fi
        id=${line%%:*}
        tier=${line#*:}
        if [[ ! $line =~ ^[A-Za-z0-9_-]{3,64}:[A-Za-z0-9_-]+$ ]]; then
            problem="expected id:tier (an id has 3 to 64 letters, digits, _ or -), got: $line"
        else
            problem=$(set_client "$id" "$tier")
        fi
        if [[ -z $problem ]]; then
            echo "ok    $id $tier"
            done=$((done + 1))
        else
            echo "FAIL  line $number: $problem" >&2
            failed=$((failed + 1))
        fi
    done
    echo "$done set, $failed failed"
    ((failed == 0))
}

if (($# == 1)); then seed <"$1"; else seed; fi
