"use strict"
/**
 * The bytes around a stored value. The layout is that of the Rust client (client/src/envelope.rs), which reads what is
 * stored uncompressed; a flag that it does not know is a miss to it.
 *
 *    0      1       2      3        5
 * +------+-------+-------+--------+---------
 * | 0xC1 | flags | codec | schema | payload
 * |      |       |       | u16 LE |
 * +------+-------+-------+--------+---------
 *
 * Compression is raw deflate, level 1, the fastest that every supported Node has; large values are compressed and
 * expanded on Node's thread pool. Anything that cannot be opened is a miss: a cache may forget, it must not guess.
 */
const zlib = require("node:zlib")
const { promisify } = require("node:util")

const FORMAT = 0xc1
const HEADER_BYTES = 5
const DEFLATED = 1 << 2
const CODEC_JSON = 1
const SCHEMA = 0

/** Below this size the thread pool costs more than it saves. */
const POOL_FROM_BYTES = 64 * 1024
/** What an entry may expand to; more is nonsense, or an attack. */
const VALUE_BYTES_MAX = 64 * 1024 * 1024

const deflateRaw = promisify(zlib.deflateRaw)
const inflateRaw = promisify(zlib.inflateRaw)
const FAST = { level: 1 }
const BOUNDED = { maxOutputLength: VALUE_BYTES_MAX }

function header(flags) {
  const bytes = Buffer.allocUnsafe(HEADER_BYTES)
  bytes[0] = FORMAT
  bytes[1] = flags
  bytes[2] = CODEC_JSON
  bytes.writeUInt16LE(SCHEMA, 3)
  return bytes
}

const PLAIN = header(0)
const PACKED = header(DEFLATED)

/**
 * The bytes to store, or null for a value that has no JSON or is larger than is kept.
 * @param {unknown} value
 * @param {number} compressFrom values of at least so many bytes are compressed
 * @returns {Promise<Buffer | null>}
 */
async function seal(value, compressFrom) {
  const json = JSON.stringify(value)
  if (json === undefined) return null
  const plain = Buffer.from(json, "utf8")
  if (plain.length > VALUE_BYTES_MAX) return null
  if (plain.length < compressFrom) return Buffer.concat([PLAIN, plain])
  const packed = plain.length < POOL_FROM_BYTES ? zlib.deflateRawSync(plain, FAST) : await deflateRaw(plain, FAST)
  return packed.length < plain.length ? Buffer.concat([PACKED, packed]) : Buffer.concat([PLAIN, plain])
}

/**
 * The value, always a fresh one, or undefined for bytes that cannot be opened.
 * @param {Buffer} bytes
 * @returns {Promise<unknown>}
 */
async function open(bytes) {
  if (bytes.length < HEADER_BYTES || bytes[0] !== FORMAT || bytes[2] !== CODEC_JSON) return undefined
  if (bytes.readUInt16LE(3) !== SCHEMA) return undefined
  const payload = bytes.subarray(HEADER_BYTES)
  try {
    if (bytes[1] === 0) return JSON.parse(payload.toString("utf8"))
    if (bytes[1] !== DEFLATED) return undefined
    const plain =
      payload.length < POOL_FROM_BYTES / 4 ? zlib.inflateRawSync(payload, BOUNDED) : await inflateRaw(payload, BOUNDED)
    return JSON.parse(plain.toString("utf8"))
  } catch {
    return undefined
  }
}

module.exports = { seal, open, VALUE_BYTES_MAX }
