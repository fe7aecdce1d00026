"use strict"
/** Envelope, names, options and log: no server. */
const { test } = require("node:test")
const assert = require("node:assert")
const { randomBytes } = require("node:crypto")
const { seal, open } = require("../src/envelope")
const { Names } = require("../src/names")
const { Log } = require("../src/log")
const { readOptions, serverName } = require("../src/options")

test("values of all sizes come back as they were, each time a fresh object", async () => {
  const noise = randomBytes(200_000).toString("base64")
  for (const value of [[], { rows: [], metadata: { count: 0 } }, "text", 0, false, [null], { a: noise }, { a: "x".repeat(500_000) }]) {
    const sealed = await seal(value, 2048)
    const one = await open(sealed)
    assert.deepEqual(one, value)
    if (typeof value === "object") assert.notEqual(one, await open(sealed))
  }
})

test("uncompressed values have the bytes that the Rust client writes for JSON", async () => {
  assert.deepEqual(await seal({ a: 1 }, 2048), Buffer.from([0xc1, 0, 1, 0, 0, ...Buffer.from('{"a":1}')]))
})

test("what compresses is smaller, what does not is stored as it is", async () => {
  assert.ok((await seal("x".repeat(10_000), 2048)).length < 500)
  const noise = randomBytes(3_000).toString("latin1")
  assert.equal((await seal(noise, 2048))[1] & ~4, 0)
})

test("bytes that cannot be opened are no value", async () => {
  const sealed = await seal({ text: "x".repeat(5_000) }, 2048)
  assert.equal(await open(Buffer.alloc(0)), undefined)
  assert.equal(await open(Buffer.from('{"a":1}')), undefined)
  for (let at = 0; at < sealed.length; at += 1) {
    const broken = Buffer.from(sealed)
    broken[at] ^= 0x55
    await open(broken)
    await open(sealed.subarray(0, at))
  }
})

test("what has no JSON is not stored", async () => {
  assert.equal(await seal(undefined, 2048), null)
  assert.equal(await seal(() => {}, 2048), null)
})

test("names carry the prefix, and every entry the tag that means all", () => {
  const names = new Names("mc:")
  assert.deepEqual(names.stored(["Product:1", "*", ""]), ["mc:Product:1", "mc:*"])
  assert.deepEqual(names.stored(undefined), ["mc:*"])
  assert.equal(names.strip(names.key("k")), "k")
})

test("options have Medusa's names and defaults", () => {
  const options = readOptions({ redisUrl: "redis://:secret@host:1/2", prefix: undefined })
  assert.equal(options.ttl, 3600)
  assert.equal(options.prefix, "mc:")
  assert.equal(options.compressionThreshold, 2048)
  assert.equal(serverName(options), "redis://host:1/2", "no password")
})

test("old projects give options of ioredis at the top level; keyPrefix becomes part of the prefix", () => {
  const options = readOptions({ redisUrl: "redis://h", family: 6, keyPrefix: "eu:" })
  assert.deepEqual(options.redisOptions, { family: 6 })
  assert.deepEqual(options.legacy.sort(), ["family", "keyPrefix"])
  assert.equal(options.prefix, "eu:mc:")
})

for (const [what, given, expected] of [
  ["no server", {}, /redisUrl is required .*CACHE_REDIS_URL/],
  ["no URL", { redisUrl: "nonsense" }, /not a URL/],
  ["another protocol", { redisUrl: "http://h" }, /begins with http:/],
  ["a database that is no number", { redisUrl: "redis://h/shop" }, /"shop", which is not the number of a database/],
  ["a ttl that is no number", { redisUrl: "redis://h", ttl: "1h" }, /ttl must be a number/],
  ["a negative ttl", { redisUrl: "redis://h", ttl: -1 }, /ttl must be a number of at least 0/],
  ["a cluster without nodes", { cluster: [] }, /cluster must be a list/],
  ["Sentinels without the primary's name", { redisOptions: { sentinels: [{ host: "h", port: 1 }] } }, /redisOptions\.name is required beside sentinels/],
  ["a timeout of nothing", { redisUrl: "redis://h", commandTimeout: 0 }, /commandTimeout must be at least 1/],
]) {
  test(`${what}: the error says what was expected`, () => {
    assert.throws(() => readOptions(given), expected)
  })
}

test("each kind of trouble is logged once a minute, with how often it came meanwhile", () => {
  let now = 0
  const lines = []
  const log = new Log({ warn: (text) => lines.push(text) }, () => now)
  for (let i = 0; i < 5; i += 1) log.once("a", "trouble")
  log.once("b", "other")
  assert.deepEqual(lines, ["medusa-mcache: trouble", "medusa-mcache: other"])
  now = 61_000
  log.once("a", "trouble")
  assert.match(lines[2], /trouble \(and 4 times more/)
})
