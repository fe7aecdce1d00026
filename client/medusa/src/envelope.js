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
const v8 = require("node:v8")
const zlib = require("node:zlib")
const { promisify } = require("node:util")

const FORMAT = 0xc1
const HEADER_BYTES = 5
const DEFLATED = 1 << 2
const CODEC_JSON = 1
/** Node's structured clone: dates stay dates, absent stays absent. Numbers from 128 on are not the Rust client's. */
const CODEC_V8 = 128
const SCHEMA = 0

/** Below this size the thread pool costs more than it saves. */
const POOL_FROM_BYTES = 64 * 1024
/** What an entry may expand to; more is nonsense, or an attack. */
const VALUE_BYTES_MAX = 64 * 1024 * 1024

const deflateRaw = promisify(zlib.deflateRaw)
const inflateRaw = promisify(zlib.inflateRaw)
const FAST = { level: 1 }
const BOUNDED = { maxOutputLength: VALUE_BYTES_MAX }

function header(flags, codec) {
  const bytes = Buffer.allocUnsafe(HEADER_BYTES)
  bytes[0] = FORMAT
  bytes[1] = flags
  bytes[2] = codec
  bytes.writeUInt16LE(SCHEMA, 3)
  return bytes
}

const HEADERS = {
  [CODEC_JSON]: { plain: header(0, CODEC_JSON), packed: header(DEFLATED, CODEC_JSON) },
  [CODEC_V8]: { plain: header(0, CODEC_V8), packed: header(DEFLATED, CODEC_V8) },
}

function encode(value, codec) {
  if (codec === CODEC_V8) return v8.serialize(value)
  const json = JSON.stringify(value)
  return json === undefined ? undefined : Buffer.from(json, "utf8")
}

const decode = (bytes, codec) => (codec === CODEC_V8 ? v8.deserialize(bytes) : JSON.parse(bytes.toString("utf8")))

/**
 * The bytes to store, or null for a value that has no JSON or is larger than is kept. The value is read before this
 * returns: what the caller changes in it later is not stored.
 * @param {unknown} value
 * @param {number} compressFrom values of at least so many bytes are compressed
 * @param {{ isExact?: boolean }} [how] exact: dates stay dates
 * @returns {Promise<Buffer | null>}
 */
async function seal(value, compressFrom, { isExact = false } = {}) {
  const codec = isExact ? CODEC_V8 : CODEC_JSON
  const bytes = encode(value, codec)
  if (bytes === undefined || bytes.length > VALUE_BYTES_MAX) return null
  const { plain, packed } = HEADERS[codec]
  if (bytes.length < compressFrom) return Buffer.concat([plain, bytes])
  const small = bytes.length < POOL_FROM_BYTES ? zlib.deflateRawSync(bytes, FAST) : await deflateRaw(bytes, FAST)
  return small.length < bytes.length ? Buffer.concat([packed, small]) : Buffer.concat([plain, bytes])
}

/** A value's bytes without compression. */
class Expanded {
  constructor(codec, plain) {
    this.codec = codec
    this.plain = plain
  }

  get length() {
    return this.plain.length
  }

  /** The same in memory of its own: a reply's buffer is a part of a much larger one. */
  copy() {
    const plain = Buffer.allocUnsafeSlow(this.plain.length)
    this.plain.copy(plain)
    return new Expanded(this.codec, plain)
  }
}

/**
 * The bytes of a value without compression, or undefined for bytes that cannot be opened.
 * @param {Buffer} bytes
 * @returns {Promise<Expanded | undefined>}
 */
async function expand(bytes) {
  if (bytes.length < HEADER_BYTES || bytes[0] !== FORMAT || bytes.readUInt16LE(3) !== SCHEMA) return undefined
  const [, flags, codec] = bytes
  if (codec !== CODEC_JSON && codec !== CODEC_V8) return undefined
  const payload = bytes.subarray(HEADER_BYTES)
  if (flags === 0) return new Expanded(codec, payload)
  if (flags !== DEFLATED) return undefined
  try {
    const plain =
      payload.length < POOL_FROM_BYTES / 4 ? zlib.inflateRawSync(payload, BOUNDED) : await inflateRaw(payload, BOUNDED)
    return new Expanded(codec, plain)
  } catch {
    return undefined
  }
}

/** The value that these bytes are, always a fresh one, or undefined. */
function valueOf(expanded) {
  if (!expanded) return undefined
  try {
    return decode(expanded.plain, expanded.codec)
  } catch {
    return undefined
  }
}

/**
 * The value, always a fresh one, or undefined for bytes that cannot be opened.
 * @param {Buffer} bytes
 * @returns {Promise<unknown>}
 */
const open = async (bytes) => valueOf(await expand(bytes))

module.exports = { seal, open, expand, valueOf, VALUE_BYTES_MAX }
