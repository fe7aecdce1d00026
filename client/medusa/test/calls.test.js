"use strict"
/** Which calls within a result that is made anew are looked for in the cache: over a store that only counts. */
const { test } = require("node:test")
const assert = require("node:assert")
const { Calls } = require("../src/module/calls")
const { Policy } = require("../src/module/policy")
const { Schema } = require("../src/module/schema")
const { Scope } = require("../src/module/context")
const { schemaOf, TYPES, CONFIGS } = require("./support/shop")

const schema = new Schema(schemaOf(TYPES), CONFIGS)

/** A watched service and the keys that the cache was asked for, within a scope. */
function watched(scope, { isSpread = false } = {}) {
  const asked = []
  const store = { isSpread, get: async (key) => void asked.push(key) ?? null, release() {}, seal: async () => null, set: async () => true }
  const calls = new Calls({ store, policy: new Policy({ schema, queries: true, reuse: true }), schema, current: () => scope, ttl: async () => 60 })
  const product = { listProducts: async () => [{ id: "prod_1" }] }
  const pricing = { calculatePrices: async () => [], listPriceSets: async () => [] }
  calls.watch(product, "product")
  calls.watch(pricing, "pricing")
  return { asked, product, pricing, calls }
}

function within(what = {}) {
  const parent = Object.assign(new Scope({ isStore: true, query: {} }), { isFilling: true })
  return Object.assign(new Scope({ isStore: true, parent }), what)
}

test("within a result that is stored as a whole the first call asks nothing, the second asks the cache", async () => {
  const { asked, product } = watched(within())
  for (const expected of [0, 1, 2]) {
    await product.listProducts({ id: "prod_1" })
    assert.equal(asked.length, expected)
  }
  await product.listProducts({ id: "prod_2" })
  assert.equal(asked.length, 2, "another call is another key")
})

test("outside of one, the first call asks as well", async () => {
  const { asked, product } = watched(new Scope({ isStore: true }))
  await product.listProducts({ id: "prod_1" })
  assert.equal(asked.length, 1)
})

test("a call that the cache answers within a whole is one of the whole's reads", async () => {
  const scope = within()
  const { product, calls } = watched(scope)
  await product.listProducts({ id: ["prod_1", "prod_2"] })
  calls.store.get = async () => ({ value: [{ id: "prod_1" }] })
  assert.deepEqual(scope.parent.reads, [])
  await product.listProducts({ id: ["prod_1", "prod_2"] })
  const [read] = scope.parent.reads
  assert.ok(read.tags.has("Product:prod_1") && read.tags.has("Product:prod_2"), "what was asked for, not only what was found")
})

test("prices are computed anew within a whole, and in a cluster everything is; so it is where nothing may come from the cache", async () => {
  const again = async ({ asked, product, pricing }, run) => {
    for (let n = 0; n < 3; n += 1) await run(product, pricing)
    return asked.length
  }
  assert.equal(await again(watched(within()), (_, pricing) => pricing.calculatePrices({ id: ["pset_1"] }, { context: { currency_code: "eur" } })), 0)
  assert.equal(await again(watched(within(), { isSpread: true }), (product) => product.listProducts({ id: "prod_1" })), 0)
  assert.equal(await again(watched(within({ isFresh: true })), (product) => product.listProducts({ id: "prod_1" })), 0)
})

test("of calls that were asked for a bounded number is remembered", async () => {
  const { asked, product, calls } = watched(within())
  for (let n = 0; n < 4_100; n += 1) await product.listProducts({ id: `prod_${n}` })
  assert.equal(calls.asked.size, 4_000)
  await product.listProducts({ id: "prod_0" })
  assert.equal(asked.length, 0, "long forgotten")
  await product.listProducts({ id: "prod_4099" })
  assert.equal(asked.length, 1)
})
