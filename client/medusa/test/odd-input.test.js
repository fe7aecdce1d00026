"use strict"
/**
 * Arguments, values and rows that nothing sensible sends: none of them may mix up results, fail a read or end the
 * process.
 */
const { test } = require("node:test")
const assert = require("node:assert")
const http = require("node:http")
const path = require("node:path")
const { randomBytes } = require("node:crypto")
const { spawnSync } = require("node:child_process")
const { pathToFileURL } = require("node:url")
const { TestRedis } = require("./support/redis")
const { startProvider } = require("./support/provider")
const { startShop } = require("./support/started-shop")
const { until } = require("./support/until")
const { schemaOf, TYPES, CONFIGS } = require("./support/shop")
const { keyOf } = require("../src/module/keys")
const { Schema } = require("../src/module/schema")
const { Read } = require("../src/module/reads")
const { tagsOfRows, tagsOfEvent } = require("../src/module/tags")
const { watch } = require("../src/module/writes")
const { describeCall } = require("../src/module/calls")
const { PriceContext, reduced } = require("../src/module/pricecontext")
const { capped } = require("../src/module/prices")
const { readOptions } = require("../src/options")
const { tapRequests } = require("../src/module/taps")
const { inRequest, current } = require("../src/module/context")

const schema = new Schema(schemaOf(TYPES), CONFIGS)
const circle = () => {
  const made = { id: "prod_1" }
  return Object.assign(made, { variants: [{ id: "variant_1", product: made }] })
}

test("what a database tells apart has keys of its own", () => {
  const invalid = new Date(NaN)
  const values = [
    null, undefined, "", "null", 0, "0", false, NaN, Infinity, -Infinity, 5, 5n, "5", "5n", [], {}, [[]], [null], /a/, /b/, /a/i, "/a/", new Map([[1, 2]]), new Map([[1, 3]]),
    new Set([1]), new Set([2]), new Date(0), new Date(1), invalid, Buffer.from("a"), Buffer.from("b"), new Uint8Array([1]), new Uint8Array([2]), { a: undefined }, { a: null },
    JSON.parse('{"__proto__":1}'), JSON.parse('{"__proto__":2}'), { a: 1 }, { b: 1 }, { a: { b: 1 } }, { "a.b": 1 }, '{"a":1}', ["a,b"], ["a", "b"],
  ]
  const keys = values.map((value) => keyOf({ filters: { title: value } }))
  for (const key of keys) assert.match(key, /^[0-9a-f]{32}$/)
  assert.equal(new Set(keys).size, values.length)
  assert.notEqual(keyOf({ filters: {} }), keyOf({ filters: { title: undefined } }))
  assert.equal(keyOf({ a: -0 }), keyOf({ a: 0 }))
  const self = { id: 1, toJSON: () => self }
  assert.match(keyOf(self), /^[0-9a-f]{32}$/)
})

test("what cannot be told from others has no key, and is asked for anew each time", async (t) => {
  class Opaque {
    #secret = 1
  }
  let deep = {}
  for (let n = 0; n < 100_000; n += 1) deep = { deep }
  for (const value of [new Opaque(), circle(), deep]) assert.equal(keyOf({ filters: value }), undefined)

  const shop = await startShop(t)
  await shop.rows.createProducts({ id: "prod_1", status: "published" })
  assert.notEqual(await shop.caching.computeKey({ at: new Opaque() }), await shop.caching.computeKey({ at: new Opaque() }))
  for (const filters of [{ id: "prod_1", more: circle() }, { id: "prod_1", more: new Opaque() }, { id: "prod_1", more: 5n }]) {
    for (let n = 0; n < 3; n += 1) {
      const [found] = await inRequest(true, () => shop.rows.listProducts(filters))
      assert.equal(found.id, "prod_1")
      assert.equal((await shop.ask({ entity: "Product", fields: ["*"], filters }))[0].id, "prod_1")
      assert.equal((await shop.remote({ entity: "Product", fields: ["title"], filters }))[0].id, "prod_1")
    }
  }
})

test("paths and names that objects are born with are names like others", () => {
  for (const relations of [["__proto__.x"], ["constructor.prototype.x"], ["constructor", "toString.length.x"]]) {
    describeCall(schema, "product", "listProducts", [{ id: "prod_1" }, { relations, select: ["__proto__.y"] }])
  }
  assert.equal({}.expands, undefined)
  const context = { currency_code: "eur", email: "x" }
  const asked = (text) => ({ filters: JSON.parse(text), context: { calculated_price: { context } } })
  assert.notEqual(keyOf(reduced(asked('{"__proto__":{"id":"1"}}'), [])), keyOf(reduced(asked('{"__proto__":{"id":"2"}}'), [])))
  assert.notEqual(keyOf(reduced({ ...asked("{}"), at: /a/ }, [])), keyOf(reduced({ ...asked("{}"), at: /b/ }, [])))
})

test("rows that lead back to themselves have their tags", () => {
  const read = new Read("product", "Product")
  read.addRows(schema, [circle()])
  assert.ok(read.tags.has("Product:prod_1") && read.tags.has("ProductVariant:variant_1"))
  const tags = new Set()
  tagsOfRows([circle()], "Product", schema, tags)
  assert.deepEqual([...tags], ["Product:prod_1", "ProductVariant:variant_1"])
})

test("a write with odd arguments is done, and clears", async () => {
  const cleared = []
  const service = { updateProducts: async () => ({ id: "prod_1" }) }
  watch(service, "product", schema, async (tags) => cleared.push(...tags))
  const odd = { get id() { throw new Error("no id") } }
  assert.deepEqual(await service.updateProducts(odd), { id: "prod_1" })
  assert.ok(cleared.includes("ProductVariant:cascade"))
})

test("events and rows whose ids are none have the tags of their types", () => {
  for (const id of [Object.create(null), { of: 1 }, Symbol("id"), true, () => {}]) {
    assert.ok(tagsOfEvent({ name: "product.updated", data: { id } }, schema).includes("Product:list:*"))
    assert.ok(tagsOfEvent({ name: "product.updated", data: [{ id: [id, "prod_1"] }] }, schema).includes("Product:prod_1"))
    const read = new Read("product", "Product")
    read.addRows(schema, [{ id }])
    assert.ok(read.tags.has("Product:list:*"))
    tagsOfRows([{ id }], "Product", schema, new Set())
  }
})

test("a result that has no JSON is answered, not stored, and keeps no lease", async (t) => {
  const soon = new Date(Date.now() + 3_600_000).toISOString()
  const shop = await startShop(t, {}, { priceLists: [{ id: "plist_1", starts_at: null, ends_at: soon }] })
  const priced = { entity: "PriceSet", fields: ["*"], filters: { id: "pset_1" } }
  for (const amount of [5n, circle()]) {
    shop.others.PriceSet = [{ id: "pset_1", amount }]
    for (let n = 0; n < 3; n += 1) assert.equal((await shop.ask(priced))[0].amount, amount)
    await shop.caching.set({ key: "own", data: { amount } })
    assert.equal(await shop.caching.get({ key: "own" }), null)
    await shop.caching.set({ key: "own", data: { amount } })
  }
  await until("no lease is kept", async () => /mcache_leases:0\b/.test(await shop.redis.ask("INFO", "mcache")))
  assert.equal(shop.caching.stats().open, 0)
  assert.ok(shop.logger.said("a value is not stored"))
})

test("a mark that does not hold ends no load of another reader", async () => {
  const released = []
  const asked = (found) => new PriceContext({ store: { get: async () => found, release: (key) => released.push(key) }, service: () => {}, outside: () => {}, tags: [] })
  assert.equal(await asked({ mark: "other" }).holds("mine"), false)
  assert.deepEqual(released, [], "it was no miss")
  assert.equal(await asked({ mark: "mine" }).holds("mine"), true)
  assert.equal(await asked(null).holds("mine"), false)
  assert.equal(released.length, 1)
})

test("a clock that is set back makes no price outlive its list", () => {
  const now = 1_000_000_000
  assert.ok(capped(3600, [now + 10_000], now + 20_000, now) < 10)
})

test("an answer that waits and then cannot be given ends its connection, not the process; it ends once", async (t) => {
  tapRequests()
  let settle
  const server = http.createServer((request, response) => {
    current().hold(new Promise((resolve) => (settle = resolve)))
    if (request.url === "/wrong") response.end(5)
    else {
      response.end("first")
      response.end("second")
    }
    setImmediate(settle)
  })
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  t.after(() => server.close())
  const ask = (where) => fetch(`http://127.0.0.1:${server.address().port}${where}`).then((response) => response.text())
  await assert.rejects(ask("/wrong"))
  assert.equal(await ask("/right"), "first")
})

test("a prefix of ioredis is part of ours wherever it stands, so that no shop reads another one's values", () => {
  const cluster = [{ host: "h", port: 1 }]
  for (const given of [
    { redisUrl: "redis://h/0?keyPrefix=eu%3A" }, { redisUrl: "redis://h", redisOptions: { keyPrefix: "eu:" } }, { cluster, clusterOptions: { keyPrefix: "eu:" } },
    { cluster, redisOptions: { keyPrefix: "eu:" } }, { cluster, clusterOptions: { redisOptions: { keyPrefix: "eu:" } } },
  ]) assert.equal(readOptions(given).prefix, "eu:mc:", JSON.stringify(given))
})

test("no time that is given is too long for a timer; what is no number is named", async (t) => {
  const redis = await TestRedis.start(t)
  const provider = await startProvider(t, { redisUrl: redis.url, commandTimeout: 3e11, connectTimeout: 3e11 })
  await provider.set({ key: "k", data: [1] })
  assert.deepEqual(await provider.get({ key: "k" }), [1])
  assert.throws(() => readOptions({ redisUrl: "redis://h", ttl: 10n }), /ttl must be a number of at least 0, not 10n/)
  assert.throws(() => readOptions({ redisUrl: "redis://h", ttl: NaN }), /not NaN/)
})

test("a load that is open holds no memory but its token's", async (t) => {
  const redis = await TestRedis.start(t)
  const { store } = await startProvider(t, { redisUrl: redis.url, compressionThreshold: 1e9, waitMs: 0 })
  const other = await startProvider(t, { redisUrl: redis.url })
  await store.set({ key: "large", data: randomBytes(300_000).toString("base64") })
  for (let n = 0; n < 10; n += 1) assert.equal(await other.get({ key: `taken${n}` }), null)
  const missed = Array.from({ length: 10 }, (_, n) => [`miss${n}`, `taken${n}`]).flat()
  await Promise.all(missed.flatMap((key) => [store.get("large"), store.get(key)]))
  const tokens = missed.map((key) => store.fills.open.get(key).loads[0].token)
  assert.ok(tokens.every((token) => Buffer.isBuffer(token) && token.buffer.byteLength <= Buffer.poolSize), `${tokens.map((token) => token.buffer.byteLength)}`)
})

test("the names of the types can be imported", () => {
  const url = (name) => JSON.stringify(pathToFileURL(path.join(__dirname, "..", name)).href)
  const code = [
    `import { McacheCachingModule, default as module_ } from ${url("index.js")}`,
    `import { McacheCachingProvider, default as provider } from ${url("provider.js")}`,
    "const { default: { service } } = module_, { default: { services } } = provider",
    "process.exitCode = service === McacheCachingModule && services[0] === McacheCachingProvider ? 0 : 1",
  ].join("\n")
  const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", code], { encoding: "utf8" })
  assert.equal(status, 0, stderr)
})

test("a shop that ends delivers what it cleared, and leaves another one in the process alone", async (t) => {
  const one = await startShop(t)
  const other = await startProvider(t, { redisUrl: one.redis.url })
  await other.set({ key: "k", data: ["old"], tags: ["Product:prod_1"] })
  const two = await startShop(t, { redisUrl: one.redis.url })
  one.bus.tell("product.updated", { id: "prod_1" })
  await one.caching.__hooks.onApplicationShutdown()
  assert.equal(await other.get({ key: "k" }), null)
  await two.rows.createProducts({ id: "prod_1", status: "published" })
  const page = { entity: "Product", fields: ["*"], filters: { id: "prod_1" } }
  await until("the other one caches", async () => (await two.readsOf(() => two.ask(page))) === 0)
})
