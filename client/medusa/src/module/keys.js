"use strict"
/**
 * Keys of queries: 128 bits of a hash over canonical JSON. The order of an object's properties does not matter. What
 * JSON cannot tell apart, and a database can, has a form of its own: a filter that is `undefined` finds other rows than
 * none, `/a/` others than `/b/`.
 */
const { createHash, randomBytes } = require("node:crypto")

/** Part of every key: a release that stores other data under the same query changes it. */
const VERSION = "2"
/** Deeper than this is nothing that is asked for; a circle is. */
const DEPTH_MAX = 200

/** What cannot be told from others. */
class Unkeyable extends Error {}

/** Whether it holds nothing but its properties; of whichever realm it is. */
function isPlainObject(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return false
  const prototype = Object.getPrototypeOf(value)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

/** JSON with the properties of objects in order. Functions and symbols are left out, as JSON.stringify does. */
function canonical(value, depth = 0) {
  if (value === null || typeof value !== "object") return canonicalScalar(value)
  if (depth > DEPTH_MAX) throw new Unkeyable("it is too deep")
  if (typeof value.toJSON === "function") {
    const json = value.toJSON()
    // Of a date that is none, too, null is made.
    if (json === null || json === undefined) return `!${value.constructor?.name}`
    return json === value ? canonicalObject(value, depth) : canonical(json, depth + 1)
  }
  if (Array.isArray(value)) return `[${value.map((item) => canonical(item, depth + 1) ?? "null").join(",")}]`
  if (value instanceof RegExp) return `!${value}`
  if (value instanceof Map) return `!Map${canonical([...value], depth + 1)}`
  if (value instanceof Set) return `!Set${canonical([...value], depth + 1)}`
  if (ArrayBuffer.isView(value)) return `!Bytes"${Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64")}"`
  return canonicalObject(value, depth)
}

function canonicalScalar(value) {
  if (value === undefined) return "!undefined"
  if (typeof value === "bigint") return `!${value}`
  if (typeof value === "number" && !Number.isFinite(value)) return `!${value}`
  return JSON.stringify(value)
}

function canonicalObject(value, depth) {
  // Of an instance it is not known what else it holds.
  if (!isPlainObject(value) && typeof value.toJSON !== "function") {
    throw new Unkeyable(`it holds a ${value.constructor?.name}`)
  }
  const parts = []
  for (const name of Object.keys(value).sort()) {
    const text = canonical(value[name], depth + 1)
    if (text !== undefined) parts.push(`${JSON.stringify(name)}:${text}`)
  }
  return `{${parts.join(",")}}`
}

/** @returns {string | undefined} 32 hexadecimal digits; undefined for what cannot be told from others */
function keyOf(input) {
  let text
  try {
    text = canonical(input) ?? ""
  } catch {
    return undefined
  }
  return createHash("sha256").update(VERSION).update(text).digest("hex").slice(0, 32)
}

/** The same; a key that is used once where there is no other. */
const keyOrNew = (input) => keyOf(input) ?? randomBytes(16).toString("hex")

module.exports = { keyOf, keyOrNew, canonical, isPlainObject, Unkeyable }
