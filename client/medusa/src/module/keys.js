"use strict"
/** Keys of queries: 128 bits of a hash over canonical JSON. The order of an object's properties does not matter. */
const { createHash } = require("node:crypto")

/** Part of every key: a release that stores other data under the same query changes it. */
const VERSION = "1"

/** JSON with the properties of objects in order. What has no JSON is left out, as JSON.stringify does. */
function canonical(value) {
  if (value === null || typeof value !== "object") return JSON.stringify(value)
  if (typeof value.toJSON === "function") return canonical(value.toJSON())
  if (Array.isArray(value)) return `[${value.map((item) => canonical(item) ?? "null").join(",")}]`
  const parts = []
  for (const name of Object.keys(value).sort()) {
    const text = canonical(value[name])
    if (text !== undefined) parts.push(`${JSON.stringify(name)}:${text}`)
  }
  // The marks that Medusa puts on contexts are symbols-like properties; they are part of the object and so of the key.
  return `{${parts.join(",")}}`
}

/** @returns {string} 32 hexadecimal digits */
function keyOf(input) {
  return createHash("sha256").update(VERSION).update(canonical(input) ?? "").digest("hex").slice(0, 32)
}

module.exports = { keyOf, canonical }
