#!/usr/bin/env python3
"""Prints a chatbox user token: mint.py USER [NAME] [ROLE...]

Reads the HS256 secret from CHATBOX__AUTH__HS256_SECRET, or from the file that HS256_SECRET_FILE names.
The secret is text: its bytes are the key as they stand, without base64 decoding.
Standard library only.
"""
import base64
import hashlib
import hmac
import json
import os
import sys
import time

LIFETIME_SECONDS = 3600


def secret() -> bytes:
    text = os.environ.get("CHATBOX__AUTH__HS256_SECRET")
    if not text:
        with open(os.environ["HS256_SECRET_FILE"], encoding="utf-8") as file:
            text = file.read()
    return text.strip().encode()


def part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def mint(key: bytes, user: str, name: str = "", roles: tuple[str, ...] = ()) -> str:
    claims = {"sub": user, "exp": int(time.time()) + LIFETIME_SECONDS}
    if name:
        claims["name"] = name
    if roles:
        claims["roles"] = list(roles)
    head = {"alg": "HS256", "typ": "JWT"}
    signed = ".".join(part(json.dumps(value).encode()) for value in (head, claims))
    return f"{signed}.{part(hmac.new(key, signed.encode(), hashlib.sha256).digest())}"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    print(mint(secret(), sys.argv[1], "".join(sys.argv[2:3]), tuple(sys.argv[3:])))
