"use strict"
/** Prices computed in a cart's context are found again by every cart for which they are the same, and by no other. */
const { test } = require("node:test")
const assert = require("node:assert")
const { TestRedis } = require("./support/redis")
const { listener, PATIENT } = require("./support/provider")
const { until } = require("./support/until")
const { schemaOf, TYPES, CONFIGS, Bus } = require("./support/shop")
const { default: module_ } = require("../index")
const { inRequest } = require("../src/module/context")
const { project, reduced, hasLarge } = require("../src/module/pricecontext")

const cart = (id, more = {}) => ({ id, currency_code: "eur", region_id: "reg_1", email: `${id}@example.com`, customer: { id: `cus_${id}`, groups: [{ id: "g1" }] }, ...more })

test("of a context only what rules name is kept, through objects and lists", () => {
  assert.deepEqual(project(cart("c1"), []), { currency_code: "eur", region_id: "reg_1" })
  assert.deepEqual(project(cart("c1", { quantity: 2 }), ["customer.groups.id"]), {
    currency_code: "eur", region_id: "reg_1", quantity: 2, "customer.groups.id": ["g1"],
  })
  assert.deepEqual(project({ "customer.groups.id": ["g2"] }, ["customer.groups.id"]), { "customer.groups.id": ["g2"] })
  assert.deepEqual(project({ item_total: 0 }, ["item_total", "missing.path"]), { item_total: 0 })
})

test("contexts are found where queries have them, and the rest of a query stays as it is", () => {
  const at = new Date(5)
  for (const [input, expected] of [
    [{ context: { variants: { calculated_price: { __type: "QueryContext", ...cart("c1") } } }, filters: { at } },
      { context: { variants: { calculated_price: { __type: "QueryContext", currency_code: "eur", region_id: "reg_1" } } }, filters: { at } }],
    [{ variables: { calculated_price: { context: cart("c1") }, context: { is_return: "false" } } },
      { variables: { calculated_price: { context: { currency_code: "eur", region_id: "reg_1" } }, context: { is_return: "false" } } }],
    [{ shipping_options: { calculated_price: { __args: { context: cart("c1") }, fields: ["*"] } } },
      { shipping_options: { calculated_price: { __args: { context: { currency_code: "eur", region_id: "reg_1" } }, fields: ["*"] } } }],
    [{ variables: { "variants.calculated_price": { context: cart("c1") } } },
      { variables: { "variants.calculated_price": { context: { currency_code: "eur", region_id: "reg_1" } } } }],
  ]) {
    assert.ok(hasLarge(input))
    assert.deepEqual(reduced(input, []), expected)
  }
  assert.ok(!hasLarge({ context: { calculated_price: { __type: "QueryContext", currency_code: "eur", region_id: "r" } } }), "nothing to leave out")
  assert.ok(!hasLarge({ filters: { id: "p" } }))
})

/** A pricing module whose prices say what they were computed from. */
class Pricing {
  constructor() {
    this.runs = 0
    this.attributes = []
    this.afterReading = async () => {}
    this.baseRepository_ = { getActiveManager: () => ({ getKnex: () => ({ raw: async () => ({ rows: this.attributes.map((attribute) => ({ attribute })) }) }) }) }
  }

  async listPriceLists() {
    return []
  }

  async calculatePrices({ id }, { context }) {
    this.runs += 1
    const seen = project(context, this.attributes)
    await this.afterReading()
    return id.map((one) => ({ id: one, seen }))
  }

  async createPriceRules(attribute) {
    this.attributes.push(attribute)
  }
}

async function startShop(t) {
  const redis = await TestRedis.start(t)
  const pricing = new Pricing()
  const logger = listener()
  const cradle = { event_bus: new Bus(), logger }
  const container = { register: (entries) => Object.entries(entries).forEach(([name, resolver]) => (cradle[name] = resolver.resolve())) }
  const options = { redisUrl: redis.url, ...PATIENT }
  for (const load of module_.loaders) await load({ container, logger, options })
  cradle.mcacheMedusa = () => ({ configs: CONFIGS, schema: schemaOf(TYPES), modules: new Map([["pricing", pricing]]) })
  const caching = new module_.service(cradle, { options })
  await caching.__hooks.onApplicationStart()
  t.after(() => caching.__hooks.onApplicationShutdown())
  const ask = (of) => inRequest(true, () => pricing.calculatePrices({ id: ["pset_1"] }, { context: of }))
  return { pricing, ask, caching }
}

async function runsOf(shop, of) {
  const before = shop.pricing.runs
  const [price] = await shop.ask(of)
  return { runs: shop.pricing.runs - before, seen: price.seen }
}

test("carts that differ in what no rule names share their prices; a rule that comes separates them at once", async (t) => {
  const shop = await startShop(t)
  await until("it is stored", async () => (await runsOf(shop, cart("c1"))).runs === 0)
  assert.equal((await runsOf(shop, cart("c2"))).runs, 0, "another cart, the same prices")
  assert.equal((await runsOf(shop, cart("c3", { region_id: "reg_2" }))).runs, 1)

  await shop.pricing.createPriceRules("email")
  const one = await runsOf(shop, cart("c1"))
  assert.deepEqual([one.runs, one.seen.email], [1, "c1@example.com"])
  await until("it is stored", async () => (await runsOf(shop, cart("c1"))).runs === 0)
  const other = await runsOf(shop, cart("c2"))
  assert.deepEqual([other.runs, other.seen.email], [1, "c2@example.com"])
})

test("what was asked for before a rule came, and computed after it, is not served to others", async (t) => {
  const shop = await startShop(t)
  await until("it is stored", async () => (await runsOf(shop, cart("c1"))).runs === 0)
  const { store } = shop.caching
  // The first asks with the attributes of before; then a rule comes, whole; then it asks for the price and computes it.
  const { get } = store
  let isOnce = false
  store.get = async function (key) {
    const found = await get.call(this, key)
    if (key === "price-attributes" && !isOnce) {
      isOnce = true
      await shop.pricing.createPriceRules("email")
    }
    return found
  }
  const first = await runsOf(shop, cart("c1"))
  assert.equal(first.seen.email, "c1@example.com", "computed with the rule")
  store.get = get
  for (let n = 2; n < 6; n += 1) assert.equal((await runsOf(shop, cart(`c${n}`))).seen.email, `c${n}@example.com`)
  // And the next one with the attributes of before would find nothing: it was not stored.
  assert.ok(shop.caching.explain("pricing.calculatePrices")[0].refused >= 1)
})

test("where the attributes cannot be read, the whole context is the key", async (t) => {
  const shop = await startShop(t)
  shop.pricing.baseRepository_ = undefined
  await until("it is stored", async () => (await runsOf(shop, cart("c1"))).runs === 0)
  assert.equal((await runsOf(shop, cart("c2"))).runs, 1)
})
