"use strict"
/** The module in place of Medusa's, with a small shop around it, on a real server. */
const { test } = require("node:test")
const assert = require("node:assert")
const { startCluster } = require("./support/redis")
const { until } = require("./support/until")
const { Bus, Rows } = require("./support/shop")
const { default: module_, McacheCachingModule } = require("../index")
const { startShop } = require("./support/started-shop")
const { inRequest } = require("../src/module/context")

const PAGE = { entity: "Product", fields: ["*"], filters: { id: "prod_1" }, expands: { variants: {} } }
const LIST = { entity: "Product", fields: ["*"], filters: { status: "published" } }
const product = (id, more = {}) => ({ id, title: id, status: "published", variants: [{ id: `variant_${id}` }], ...more })

/** Lets a shape be learned and its result be stored. */
async function warm(shop, input) {
  await shop.ask(input)
  await shop.ask(input)
  assert.equal(await shop.readsOf(() => shop.ask(input)), 0, "it is cached")
}

test("the package has the form that Medusa's Module has", () => {
  assert.equal(module_.service, McacheCachingModule)
  assert.equal(module_.service.prototype.__joinerConfig().serviceName, "caching")
})

test("queries of the catalogue", async (t) => {
  const shop = await startShop(t)
  for (const id of ["prod_1", "prod_2"]) await shop.rows.createProducts(product(id))

  await t.test("the first of a shape shows what it reads, the second is stored, the third is served", async () => {
    assert.equal(await shop.readsOf(() => shop.ask(PAGE)), 1)
    assert.equal(await shop.readsOf(() => shop.ask(PAGE)), 1)
    assert.equal(await shop.readsOf(() => shop.ask(PAGE)), 0)
    assert.equal((await shop.ask(PAGE))[0].title, "prod_1")
  })
  await t.test("outside requests of the store nothing is cached beyond Medusa's choice", async () => {
    assert.equal(await shop.readsOf(() => shop.ask(PAGE, { isStore: false })), 1)
  })
  await t.test("enable: false wins", async () => {
    assert.equal(await shop.readsOf(() => shop.ask(PAGE, { cache: { enable: false } })), 1)
  })
  await t.test("a change of the product clears it, one of another does not", async () => {
    await shop.rows.updateProducts("prod_2", { title: "other" })
    assert.equal(await shop.readsOf(() => shop.ask(PAGE)), 0)
    await shop.rows.updateProducts("prod_1", { title: "new" })
    assert.equal((await shop.ask(PAGE))[0].title, "new")
  })
  await t.test("query() is cached, too", async () => {
    const input = { entity: "Product", fields: ["title"], filters: { id: "prod_1" } }
    for (let n = 0; n < 2; n += 1) await shop.remote(input)
    await until("it is stored", async () => (await shop.readsOf(() => shop.remote(input))) === 0)
    await shop.rows.updateProducts("prod_1", { title: "newer" })
    assert.equal((await shop.remote(input))[0].title, "newer")
  })
  await t.test("explain says what became of each query", async () => {
    const [page] = shop.caching.explain("Product [*] by (id)")
    assert.equal(page.cached, true)
    assert.ok(page.hits > 0 && page.fills > 0 && page.tags.includes("Product:prod_1"))
    assert.deepEqual(page.services, ["product"])
  })
})

test("what shoppers change is not cached, and explain says why", async (t) => {
  const shop = await startShop(t)
  shop.others.Cart = [{ id: "cart_1" }]
  const cart = { entity: "Cart", fields: ["*"], filters: { id: "cart_1" } }
  for (let n = 0; n < 3; n += 1) await shop.ask(cart)
  shop.others.Cart = [{ id: "cart_1", email: "x" }]
  assert.equal((await shop.ask(cart))[0].email, "x")
  assert.match(shop.caching.explain("Cart")[0].why, /reads Cart of cart/)
})

test("an empty answer is cleared by what comes into it", async (t) => {
  const shop = await startShop(t)
  await shop.rows.createProducts(product("prod_1", { status: "draft" }))
  await warm(shop, LIST)
  await shop.rows.updateProducts("prod_1", { status: "published" })
  assert.equal((await shop.ask(LIST)).length, 1)
  await warm(shop, PAGE)
  await shop.rows.createProducts(product("prod_2"))
  assert.equal((await shop.ask(LIST)).length, 2)
})

test("a write without an event is noticed", async (t) => {
  const shop = await startShop(t)
  await shop.rows.createProducts(product("prod_1"))
  await warm(shop, LIST)
  await shop.rows.updateProducts("prod_1", { title: "silent" }, { silent: true })
  assert.equal((await shop.ask(LIST))[0].title, "silent")
  await warm(shop, PAGE)
  await shop.rows.updateProductCategories("pcat_1", { product_ids: ["prod_1"] })
  assert.equal((await shop.ask(PAGE))[0].category, "pcat_1")
})

test("two processes: what one writes the other does not serve", async (t) => {
  const one = await startShop(t)
  const bus = new Bus()
  const other = await startShop(t, { redisUrl: one.redis.url }, { rows: Object.assign(new Rows(bus), { products: one.rows.products }) })
  // One module answers the queries of a process: here both are one process, so each is asked through its own interface.
  await one.rows.createProducts(product("prod_1"))
  await one.caching.set({ key: "k", data: [{ id: "prod_1" }], tags: ["Product:prod_1"] })
  assert.ok(await other.caching.get({ key: "k" }))
  await one.rows.updateProducts("prod_1", { title: "x" }, { silent: true })
  assert.equal(await other.caching.get({ key: "k" }), null)
})

test("what Medusa writes again while it starts is not served from before the start", async (t) => {
  const shop = await startShop(t)
  const { caching } = shop
  await until("both are stored", async () => {
    await caching.set({ key: "currencies", data: [{ name: "Euro" }], tags: ["Currency:list:*"] })
    await caching.set({ key: "country", data: [{ name: "Italy" }], tags: ["Country:it", "Country:cascade"] })
    await caching.set({ key: "product", data: [{ id: "prod_1" }], tags: ["Product:prod_1", "Product:cascade"] })
    return (await caching.get({ key: "currencies" })) && (await caching.get({ key: "country" })) && (await caching.get({ key: "product" }))
  })
  const next = await startShop(t, { redisUrl: shop.redis.url })
  assert.equal(await next.caching.get({ key: "currencies" }), null)
  assert.equal(await next.caching.get({ key: "country" }), null)
  assert.ok(await next.caching.get({ key: "product" }), "the rest is")
})

test("a result that was read before a write and arrives after it is not served", async (t) => {
  const shop = await startShop(t)
  await shop.rows.createProducts(product("prod_1"))
  await warm(shop, PAGE)
  await shop.rows.updateProducts("prod_1", { title: "first" })
  let go
  const held = new Promise((resolve) => (go = resolve))
  shop.rows.beforeReply = () => held
  const before = shop.rows.reads
  const slow = shop.ask(PAGE)
  await until("it has read", () => shop.rows.reads > before)
  await shop.rows.updateProducts("prod_1", { title: "second" })
  shop.rows.beforeReply = async () => {}
  go()
  assert.equal((await slow)[0].title, "first", "it began before the write")
  assert.equal((await shop.ask(PAGE))[0].title, "second")
})

test("a query that fails keeps no lease: its key is not waited for", async (t) => {
  const shop = await startShop(t)
  await shop.rows.createProducts(product("prod_1"))
  await warm(shop, PAGE)
  await shop.rows.updateProducts("prod_1", { title: "first" })
  const leases = async () => /mcache_leases:(\d+)/.exec(await shop.redis.ask("INFO", "mcache"))[1]
  for (const how of [{}, { cache: { enable: true } }]) {
    shop.rows.beforeReply = async () => assert.fail("the database is away")
    await assert.rejects(shop.ask(PAGE, how), /the database is away/)
    await until("the lease is given back", async () => (await leases()) === "0")
  }
  assert.equal(shop.caching.stats().open, 0)
})

test("prices end with their lists", async (t) => {
  const soon = new Date(Date.now() + 60_000).toISOString()
  const shop = await startShop(t, {}, { priceLists: [{ id: "plist_1", starts_at: null, ends_at: soon }] })
  shop.others.PriceSet = [{ id: "pset_1" }]
  const priced = { entity: "PriceSet", fields: ["*"], filters: { id: "pset_1" } }
  for (let n = 0; n < 2; n += 1) await shop.ask(priced)
  const keys = await shop.redis.ask("KEYS", "mc:*")
  const lives = await Promise.all(keys.filter((key) => key !== "mc:price-boundaries").map((key) => shop.redis.ask("TTL", key)))
  assert.ok(lives.length > 0 && lives.every((seconds) => seconds <= 60), `${lives}`)
})

test("prices read before a list begins and stored after it are not served", async (t) => {
  const lists = [{ id: "plist_1", starts_at: new Date(Date.now() + 3_600_000).toISOString(), ends_at: null }]
  const shop = await startShop(t, {}, { priceLists: lists })
  shop.others.PriceSet = [{ id: "pset_1", amount: "before" }]
  const priced = { entity: "PriceSet", fields: ["*"], filters: { id: "pset_1" } }
  await shop.ask(priced)
  shop.onRead = () => {
    // It begins when the query has read its prices.
    lists[0].starts_at = new Date().toISOString()
    shop.others.PriceSet = [{ id: "pset_1", amount: "after" }]
    shop.onRead = undefined
  }
  assert.equal((await shop.ask(priced))[0].amount, "before")
  assert.equal((await shop.ask(priced))[0].amount, "after")
})

test("what the index engine found depends on all rows that it may have looked at; rows that are given belong to no key", async (t) => {
  const shop = await startShop(t, { extensions: { modules: false } })
  const { Query } = shop.classes
  const index = (input, cache) => inRequest(true, async () => {
    const result = await new Query().index(input, { cache })
    await shop.stored
    return result
  })
  await shop.rows.createProducts(product("prod_1"))
  for (let n = 0; n < 3; n += 1) assert.equal(await shop.readsOf(() => index(PAGE)), 1, "not asked for by Medusa")
  await index(PAGE, { enable: true })
  assert.equal(await shop.readsOf(() => index(PAGE, { enable: true })), 0)
  await shop.rows.createProducts(product("prod_2"))
  assert.equal(await shop.readsOf(() => index(PAGE, { enable: true })), 1, "another product may belong to it now")
})

test("nothing is stored twice: what a stored query asks within is part of it", async (t) => {
  const shop = await startShop(t)
  await shop.rows.createProducts(product("prod_1"))
  const outer = { ...PAGE, fields: ["outer"], nested: LIST }
  await shop.ask(outer)
  await shop.ask(outer)
  assert.equal((await shop.redis.ask("KEYS", "mc:*")).length, 1 + (await shop.redis.ask("EXISTS", "mc:price-boundaries")) * 0 + 1)
  // And the outer result depends on what the inner one read.
  await warm(shop, outer)
  await shop.rows.createProducts(product("prod_7"))
  assert.ok((await shop.readsOf(() => shop.ask(outer))) > 0)
})

test("reads between modules", async (t) => {
  const shop = await startShop(t)
  await shop.rows.createProducts(product("prod_1", { made: new Date(86_400_000) }))
  // Rows with dates, as modules return them.
  const plain = shop.rows.beforeReply
  const ask = (...args) => inRequest(true, () => shop.rows.listProducts(...args))
  const stored = async (...args) => until("it is stored", async () => (await shop.readsOf(() => ask(...args))) === 0)

  await t.test("the same call is served from the cache, until a write", async () => {
    await stored({ id: "prod_1" })
    await shop.rows.updateProducts("prod_1", { title: "new" }, { silent: true })
    assert.equal((await ask({ id: "prod_1" }))[0].title, "new")
  })
  await t.test("what the caller changes in it is not stored", async () => {
    await shop.rows.updateProducts("prod_1", { title: "right" })
    const got = await ask({ id: "prod_1" })
    got[0].title = "changed by the caller"
    await stored({ id: "prod_1" })
    assert.equal((await ask({ id: "prod_1" }))[0].title, "right")
  })
  await t.test("within a transaction, outside of store requests and in a query that must be fresh it is not", async () => {
    await stored({ id: "prod_1" })
    assert.equal(await shop.readsOf(() => ask({ id: "prod_1" }, {}, { transactionManager: {}, __type: "MedusaContext" })), 1)
    assert.equal(await shop.readsOf(() => shop.rows.listProducts({ id: "prod_1" })), 1)
    assert.equal(await shop.readsOf(() => shop.ask({ ...PAGE, fields: ["fresh"] }, { cache: { enable: false } })), 1)
  })
  await t.test("explain names the call", () => {
    const [call] = shop.caching.explain("product.listProducts")
    assert.ok(call.hits > 0 && call.tags.includes("Product:prod_1"))
  })
  shop.rows.beforeReply = plain
})

test("a result that is made anew takes what is asked for again and again from the cache, and is cleared with it", async (t) => {
  const shop = await startShop(t)
  for (const id of ["prod_1", "prod_2"]) await shop.rows.createProducts(product(id))
  const part = { entity: "Product", fields: ["part"], filters: { id: "prod_2" } }
  // The small shop's queries read a module like Medusa's: through the method that is watched.
  const page = (n) => ({ entity: "Region", fields: [`page ${n}`], filters: { id: `reg_${n}` }, nested: part })
  const made = async (n) => {
    const shape = { ...page(n), fields: ["page"] }
    return await shop.readsOf(() => shop.ask(shape))
  }
  assert.deepEqual([await made(1), await made(1)], [1, 1], "learned, and stored as a whole; the part is asked for the first time")
  assert.equal(await made(1), 0, "the whole is served")
  assert.equal(await made(2), 1, "the part is asked for again, and stored")
  await until("the part is stored", async () => shop.caching.explain("product.listProducts")[0].fills > 0)
  assert.equal(await made(3), 0, "made with the part from the cache")
  assert.ok(shop.caching.explain("Region [page]")[0].tags.includes("Product:prod_2"))
  await shop.rows.updateProducts("prod_1", { title: "other" })
  assert.equal(await made(3), 0, "another product concerns neither")
  await shop.rows.updateProducts("prod_2", { title: "new" }, { silent: true })
  assert.equal(await made(3), 1, "the whole that was made with a cached part went with it")
})

test("in a cluster a result is made without cached parts, since its server may have been cleared before theirs", async (t) => {
  const nodes = await startCluster(t, 3)
  const cluster = nodes.map(({ port }) => ({ host: "127.0.0.1", port }))
  const shop = await startShop(t, { cluster, commandTimeout: 2_000 })
  await shop.rows.createProducts(product("prod_2"))
  const part = { entity: "Product", fields: ["part"], filters: { id: "prod_2" } }
  const made = (n) => shop.readsOf(() => shop.ask({ entity: "Region", fields: ["page"], filters: { id: `reg_${n}` }, nested: part }))
  const reads = []
  for (let n = 0; n < 6; n += 1) reads.push(await made(n))
  assert.deepEqual(reads, [1, 1, 1, 1, 1, 1])
})

test("what comes back of a call has its dates; what is more than rows is not stored", async () => {
  const { isPlain } = require("../src/module/calls")
  const { seal, open } = require("../src/envelope")
  const value = [{ at: new Date(5), none: undefined, deep: [{ n: 1.5 }] }]
  assert.ok(isPlain(value))
  assert.deepEqual(await open(await seal(value, 10, { isExact: true })), value)
  assert.ok(!isPlain([{ amount: new (class BigNumber {})() }]))
  assert.ok(!isPlain({ run() {} }))
})

test("a result that the route goes on writing into is stored as it was", async (t) => {
  const soon = new Date(Date.now() + 600_000).toISOString()
  const shop = await startShop(t, {}, { priceLists: [{ id: "plist_1", starts_at: null, ends_at: soon }] })
  shop.others.PriceSet = [{ id: "pset_1" }]
  const priced = { entity: "PriceSet", fields: ["*"], filters: { id: "pset_1" } }
  await shop.ask(priced)
  const { Query } = shop.classes
  const result = await inRequest(true, () => new Query().graph(priced))
  result.data[0].tax = 19
  await shop.stored
  assert.equal((await shop.ask(priced))[0].tax, undefined)
})

test("Medusa's interface", async (t) => {
  const shop = await startShop(t)
  const { caching } = shop

  await t.test("tags given are used alone, unless the computed ones are asked for as well", async () => {
    await caching.set({ key: "a", data: [{ id: "prod_1" }], tags: ["Custom:1"] })
    await caching.clear({ tags: ["Product:prod_1"] })
    assert.ok(await caching.get({ key: "a" }))
    await caching.set({ key: "b", data: [{ id: "prod_1" }], tags: ["Custom:1"], computeAutomaticTags: true })
    await caching.clear({ tags: ["Product:prod_1"] })
    assert.equal(await caching.get({ key: "b" }), null)
    await caching.clear({ tags: ["Custom:1"] })
    assert.equal(await caching.get({ key: "a" }), null)
  })
  await t.test("a single tag may be a text instead of a list", async () => {
    await caching.set({ key: "text", data: [1], tags: "Custom:list:*" })
    await caching.set({ key: "other", data: [2], tags: ["C"] })
    assert.deepEqual(await caching.get({ tags: "Custom:list:*" }), [[1]])
    await caching.clear({ tags: "Custom:list:*" })
    assert.equal(await caching.get({ key: "text" }), null)
    assert.deepEqual(await caching.get({ key: "other" }), [2])
  })
  await t.test("autoInvalidate false is spared by events, not by clear", async () => {
    await caching.set({ key: "c", data: [1], tags: ["Product:prod_1"], options: { autoInvalidate: false } })
    shop.bus.tell("product.updated", { id: "prod_1" })
    await until("the event is dealt with", () => caching.stats().invalidations > 0)
    assert.ok(await caching.get({ key: "c" }))
    await caching.clear({ tags: ["Product:prod_1"], options: { autoInvalidate: false } })
    assert.ok(await caching.get({ key: "c" }))
    await caching.clear({ tags: ["Product:prod_1"] })
    assert.equal(await caching.get({ key: "c" }), null)
  })
  await t.test("by key and by tags; neither is an error", async () => {
    await caching.set({ key: "d", data: [4], tags: ["T:1"] })
    assert.deepEqual(await caching.get({ tags: ["T:1"] }), [[4]])
    assert.deepEqual(await caching.get({ key: "d", tags: ["nothing"] }), [4])
    await assert.rejects(caching.get({}), /Either key or tags/)
    await assert.rejects(caching.clear({}), /Either key or tags/)
    await assert.rejects(caching.set({ data: [] }), /Key must be provided/)
    await caching.clear({ key: "d" })
    assert.equal(await caching.get({ key: "d" }), null)
  })
  await t.test("a provider named in set may bring its ttl", async () => {
    await caching.set({ key: "e", data: [5], ttl: 10, providers: [{ id: "mcache", ttl: 500 }] })
    assert.ok((await shop.redis.ask("TTL", "mc:e")) > 400)
  })
  await t.test("computeKey and computeTags", async () => {
    assert.equal(await caching.computeKey({ a: 1, b: 2 }), await caching.computeKey({ b: 2, a: 1 }))
    const found = await caching.computeTags([{ id: "prod_1", variants: [{ id: "variant_1" }] }])
    assert.deepEqual(found.sort(), ["Product:list:*", "Product:prod_1", "ProductVariant:list:*", "ProductVariant:variant_1"])
    const event = await caching.computeTags({}, { entities: [{ type: "Product", id: "prod_1" }], operation: "updated" })
    assert.deepEqual(event, ["Product:prod_1", "Product:list:*"])
    assert.deepEqual(await caching.computeTags({ nothing: 1 }), [])
  })
})

for (const extension of ["queries", "modules", "writes", "precise", "prices", "tags", "reuse"]) {
  test(`without ${extension}: it still serves what Medusa asks for, and clears by events`, async (t) => {
    const extensions = { [extension]: false, ...(extension === "queries" ? { modules: false } : {}) }
    const shop = await startShop(t, { extensions })
    await shop.rows.createProducts(product("prod_1"))
    const enabled = { cache: { enable: true } }
    await shop.ask(LIST, enabled)
    assert.equal(await shop.readsOf(() => shop.ask(LIST, enabled)), 0)
    await shop.rows.updateProducts("prod_1", { title: "x" })
    await until("it is cleared", async () => (await shop.ask(LIST, enabled))[0].title === "x")
    if (extension === "queries") {
      for (let n = 0; n < 3; n += 1) assert.equal(await shop.readsOf(() => shop.ask(PAGE)), 1)
    }
  })
}
