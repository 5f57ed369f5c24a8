#!/bin/sh
# Prints a chatbox user token: mint.sh USER [NAME] [ROLE]
#
# Reads the HS256 secret from CHATBOX__AUTH__HS256_SECRET, or from the file that HS256_SECRET_FILE names.
# The secret is text: its bytes are the key as they stand, without base64 decoding.
# Needs openssl. USER, NAME and ROLE are put into JSON as they are: no quotes and no backslashes in them.
# For work by hand: the key stands in the arguments of openssl, where other users of this machine can read it.
set -eu

lifetime_seconds=3600
user=${1:?usage: mint.sh USER [NAME] [ROLE]}
name=${2:-}
role=${3:-}
secret=${CHATBOX__AUTH__HS256_SECRET:-}
[ -n "$secret" ] || secret=$(cat "$HS256_SECRET_FILE")

part() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }

claims="\"sub\":\"$user\",\"exp\":$(($(date +%s) + lifetime_seconds))"
[ -z "$name" ] || claims="$claims,\"name\":\"$name\""
[ -z "$role" ] || claims="$claims,\"roles\":[\"$role\"]"
signed=$(printf '{"alg":"HS256","typ":"JWT"}' | part).$(printf '{%s}' "$claims" | part)
key=$(printf '%s' "$secret" | od -An -v -tx1 | tr -d ' \n')
signature=$(printf '%s' "$signed" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | part)
printf '%s.%s\n' "$signed" "$signature"
