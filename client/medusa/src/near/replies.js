"use strict"
/**
 * What the server says for near caches, read without trust: anything unexpected is an error, never a guess.
 * Digests are strings of eight characters, one for each byte; cells are numbers. docs/near.md has the layout.
 */
const HEAD_BYTES = 17
const ITEM_BYTES = 8
const CELL_BITS_MAX = 30
const KINDS = new Set(["h", "a", "s", "k", "l", "f", "r"])

class Nonsense extends Error {}

function expect(holds, what) {
  if (!holds) throw new Nonsense(`the server says no ${what}`)
}

function count(value, what) {
  const found = Number(value)
  expect(value !== null && Number.isSafeInteger(found) && found >= 0, what)
  return found
}

/** A number of eight bytes. */
function readLong(bytes, at) {
  const found = bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32
  expect(Number.isSafeInteger(found), "number of an event")
  return found
}

const readDigest = (bytes, at) => bytes.toString("latin1", at, at + ITEM_BYTES)

/** The low bits of a digest: in which cell a key is. */
const cellOf = (digest, bits) => (digest.readUInt32LE(0) & (2 ** bits - 1)) >>> 0

/** @returns {{ number: number, kind: string, items: (string | number)[] }[]} of kind `k` items are cells, else digests */
function readEvents(bytes) {
  const events = []
  let at = 0
  while (at < bytes.length) {
    expect(at + HEAD_BYTES <= bytes.length, "whole event")
    const number = readLong(bytes, at)
    const kind = bytes.toString("latin1", at + 12, at + 13)
    expect(KINDS.has(kind), `event of a known kind (${JSON.stringify(kind)})`)
    const size = bytes.readUInt32LE(at + 13)
    at += HEAD_BYTES
    expect(at + size * ITEM_BYTES <= bytes.length, "whole event")
    const items = []
    for (let i = 0; i < size; i += 1, at += ITEM_BYTES) items.push(kind === "k" ? readLong(bytes, at) : readDigest(bytes, at))
    events.push({ number, kind, items })
  }
  return events
}

/** An answer of MCACHE.FEED. gap: everything is to be forgotten first; the key of digests and the bits of cells. */
function readAnswer(reply) {
  expect(Array.isArray(reply) && (reply.length === 4 || reply.length === 5), "answer of FEED")
  const [position, lease, more, events, gap] = reply
  expect(Buffer.isBuffer(position) && position.length > 0, "position")
  expect(Buffer.isBuffer(events), "events")
  const answer = {
    position: String(position),
    leaseMs: count(lease, "lease"),
    more: count(more, "word whether there is more") !== 0,
    events: readEvents(events),
    gap: undefined,
  }
  if (gap !== undefined && gap !== null) {
    expect(Array.isArray(gap) && Buffer.isBuffer(gap[0]) && gap[0].length === 16, "hash key")
    const bits = count(gap[1], "bits of cells")
    expect(bits <= CELL_BITS_MAX, "bits of cells")
    // The reply's buffer is a part of a larger one.
    answer.gap = { key: Buffer.from(gap[0]), bits }
  }
  return answer
}

/** What is said beside a value; undefined: it must not be kept. lifeMs: Infinity if it does not end. */
function readNear(part) {
  if (part === undefined || part === null) return undefined
  expect(Array.isArray(part) && part.length === 4 && Buffer.isBuffer(part[3]), "near data")
  const [number, life, manual, digests] = part
  expect(digests.length % ITEM_BYTES === 0, "digests")
  const lifeMs = Number(life)
  expect(Number.isSafeInteger(lifeMs), "life")
  const found = new Set()
  for (let at = 0; at < digests.length; at += ITEM_BYTES) found.add(readDigest(digests, at))
  return {
    number: count(number, "number of an event"),
    lifeMs: lifeMs < 0 ? Infinity : lifeMs,
    isManual: count(manual, "word whether it is MANUAL") !== 0,
    digests: [...found],
  }
}

module.exports = { readAnswer, readEvents, readNear, cellOf, Nonsense }
