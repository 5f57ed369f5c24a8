#!/usr/bin/env node
// Prints a chatbox user token: mint.mjs USER [NAME] [ROLE...]
//
// Reads the HS256 secret from CHATBOX__AUTH__HS256_SECRET, or from the file that HS256_SECRET_FILE names.
// The secret is text: its bytes are the key as they stand, without base64 decoding.
// Standard library only.
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";

const LIFETIME_SECONDS = 3600;

function secret() {
  const { CHATBOX__AUTH__HS256_SECRET: text, HS256_SECRET_FILE: file } = process.env;
  return (text || readFileSync(file, "utf8")).trim();
}

const part = (data) => Buffer.from(data).toString("base64url");

export function mint(key, user, name, roles = []) {
  const claims = { sub: user, exp: Math.floor(Date.now() / 1000) + LIFETIME_SECONDS };
  if (name) claims.name = name;
  if (roles.length > 0) claims.roles = roles;
  const signed = [{ alg: "HS256", typ: "JWT" }, claims].map((value) => part(JSON.stringify(value))).join(".");
  return `${signed}.${createHmac("sha256", key).update(signed).digest("base64url")}`;
}

const [user, name, ...roles] = process.argv.slice(2);
if (!user) {
  console.error("usage: mint.mjs USER [NAME] [ROLE...]");
  process.exit(2);
}
console.log(mint(secret(), user, name, roles));
