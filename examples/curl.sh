#!/bin/sh
# A walk through the native API: one key, one answer. Needs a running server (npm start) and curl.
#
#   ASKONCE_API_KEY=<the key npm start prints> sh examples/curl.sh
#
# ASKONCE_URL is http://127.0.0.1:8787 unless set. Each command is printed before it runs, with its variables
# unexpanded: it can be pasted into a shell that has them, and the API key never shows on the screen.
set -eu

ASKONCE_URL=${ASKONCE_URL:-http://127.0.0.1:8787}
: "${ASKONCE_API_KEY:?set ASKONCE_API_KEY to the key that npm start prints}"

say() { printf '\n# %s\n' "$1"; }

run() {
  printf '$ %s\n' "$1"
  eval "$1"
  printf '\n'
}

# shellcheck disable=SC2016 # here and below: eval expands the variables
run 'tmp=$(mktemp -d)'
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say 'A key names one intended answer. A fresh one each time this script runs, so that the first submission is new.'
run "KEY=curl-tour/$(date +%s)-$$"
run 'BODY='\''{"operation": "chat.completions", "request": {"model": "simulated/small", "messages": [{"role": "user", "content": "Why is the sunset blue on Mars?"}]}}'\'''

say '1. Submit. 202: the job is committed, whatever dies next. Location says where it is.'
run 'curl -sS --max-time 30 -D "$tmp/headers" -o "$tmp/job" -X POST "$ASKONCE_URL/v1/jobs" \
  -H "Authorization: Bearer $ASKONCE_API_KEY" -H "Content-Type: application/json" \
  -H "Idempotency-Key: $KEY" -d "$BODY"
cat "$tmp/headers" "$tmp/job"'

ID=$(sed -n 's#^[Ll]ocation:.*/v1/jobs/\([0-9A-Za-z-]*\).*#\1#p' "$tmp/headers")
if [ -z "$ID" ]; then
  echo 'The submission was not accepted (see above); the rest of the tour needs its job.' >&2
  exit 1
fi
run "ID=$ID"

say '2. Wait for it, up to 30 seconds. 200: it has ended, and "response" is what the provider said.'
run 'curl -sS --max-time 45 -i "$ASKONCE_URL/v1/jobs/$ID" \
  -H "Authorization: Bearer $ASKONCE_API_KEY" -H "Prefer: wait=30"'

say '3. Submit the same again, as a producer does that crashed: Idempotent-Replayed: true, same job, nothing is called.'
run 'curl -sS --max-time 30 -i -X POST "$ASKONCE_URL/v1/jobs" \
  -H "Authorization: Bearer $ASKONCE_API_KEY" -H "Content-Type: application/json" \
  -H "Idempotency-Key: $KEY" -d "$BODY"'

say '4. Another question under the same key: 422, with a pointer to what differs.'
run 'curl -sS --max-time 30 -i -X POST "$ASKONCE_URL/v1/jobs" \
  -H "Authorization: Bearer $ASKONCE_API_KEY" -H "Content-Type: application/json" \
  -H "Idempotency-Key: $KEY" \
  -d '\''{"operation": "chat.completions", "request": {"model": "simulated/small", "messages": [{"role": "user", "content": "And on Titan?"}]}}'\'''

say '5. No key: 400.'
run 'curl -sS --max-time 30 -i -X POST "$ASKONCE_URL/v1/jobs" \
  -H "Authorization: Bearer $ASKONCE_API_KEY" -H "Content-Type: application/json" -d "$BODY"'

say '6. The stored answer alone: the bytes the provider sent, its status in x-provider-status.'
run 'curl -sS --max-time 30 -i "$ASKONCE_URL/v1/jobs/$ID/response" -H "Authorization: Bearer $ASKONCE_API_KEY"'

say '7. The newest jobs, two to a page; next_cursor leads on.'
run 'curl -sS --max-time 30 "$ASKONCE_URL/v1/jobs?limit=2" -H "Authorization: Bearer $ASKONCE_API_KEY"'

say '8. One job by its key.'
run 'curl -sS --max-time 30 -G "$ASKONCE_URL/v1/jobs" --data-urlencode "key=$KEY" -H "Authorization: Bearer $ASKONCE_API_KEY"'

say '9. Its attempts: every call that was or may have been paid. Four submissions, one call.'
run 'curl -sS --max-time 30 "$ASKONCE_URL/v1/jobs/$ID/attempts" -H "Authorization: Bearer $ASKONCE_API_KEY"'
