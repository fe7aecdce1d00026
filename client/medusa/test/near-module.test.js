"use strict"
/** The module with a near cache: which reads are near, and that what changes is seen by the next request. */
const { test } = require("node:test")
const assert = require("node:assert")
const { TestRedis } = require("./support/redis")
const { startShop } = require("./support/started-shop")
const { PATIENT } = require("./support/provider")
const { until } = require("./support/until")
const { Store } = require("../src/store")

const PAGE = { entity: "Product", fields: ["*"], filters: { id: "prod_1" }, expands: { variants: {} } }

test("queries of the store are near, whatever the writer is the next request sees it", async (t) => {
  const redis = await TestRedis.start(t, { args: ["--mcache.feed", "yes", "--mcache.near-lease-ms", "5000"] })
  await until("no predecessor is waited for", async () => /near_predecessors_us:0\b/.test(await redis.ask("INFO", "mcache")))
  const shop = await startShop(t, { redisUrl: redis.url, near: { bytes: 1 << 20 } })
  const other = await new Store({ options: { redisUrl: redis.url, ...PATIENT }, logger: {} }).start()
  t.after(() => other.close())
  await shop.rows.createProducts({ id: "prod_1", title: "0", status: "published", variants: [] })
  const title = async (how) => (await shop.ask(PAGE, how))[0].title
  const near = async () => {
    await until("the page is near", async () => {
      const before = shop.caching.stats().nearHits
      await title()
      return shop.caching.stats().nearHits > before
    })
  }
  for (let round = 1; round <= 10; round += 1) {
    await near()
    // By the module in this process, and as another process does it: the row, then the clear.
    if (round % 2) await shop.rows.updateProducts("prod_1", { title: String(round) }, { silent: true })
    else {
      shop.rows.products.get("prod_1").title = String(round)
      assert.equal(await other.clearTags(["Product:prod_1"], true), true)
    }
    assert.equal(await title(), String(round))
  }
  assert.ok(other.stats().settled > 0, "it was waited for")
  await near()
  const fetches = await redis.calls("mcache.fetch")
  for (let n = 0; n < 20; n += 1) assert.equal(await title(), "10")
  assert.equal(await redis.calls("mcache.fetch"), fetches, "without a message to the server")
  const before = shop.caching.stats().nearHits
  await title({ isStore: false, cache: { enable: true } })
  assert.equal(shop.caching.stats().nearHits, before, "the back office reads the server")
})

test("after a miss by the shop's own code, the rest of its request reads the server; what lags is not stored", async (t) => {
  const redis = await TestRedis.start(t, { args: ["--mcache.feed", "yes"] })
  const { inRequest } = require("../src/module/context")
  const shop = await startShop(t, { redisUrl: redis.url, near: { bytes: 1 << 20 } })
  await shop.rows.createProducts({ id: "prod_1", title: "0", status: "published", variants: [] })
  const { Query } = shop.classes
  const nearHitsOf = async (run) => {
    const before = shop.caching.stats().nearHits
    await inRequest(true, run)
    return shop.caching.stats().nearHits - before
  }
  const page = () => new Query().graph(PAGE)
  await until("the page is near", async () => (await nearHitsOf(page)) === 1)
  const deriving = async () => {
    if (await shop.caching.get({ key: "derived" })) return
    const { data } = await page()
    await shop.caching.set({ key: "derived", data, tags: ["Product:prod_1"] })
  }
  assert.equal(await nearHitsOf(deriving), 0)
})

test("an event's clear holds the request's answer, if there is a near cache", async (t) => {
  const redis = await TestRedis.start(t, { args: ["--mcache.feed", "yes"] })
  const { inRequest, current } = require("../src/module/context")
  for (const near of [{ bytes: 1 << 20 }, false]) {
    const shop = await startShop(t, { redisUrl: redis.url, near })
    await inRequest(false, async () => {
      shop.bus.tell("product.updated", { id: "prod_1" })
      assert.equal(current().unsettled?.size ?? 0, near ? 1 : 0)
    })
    await shop.caching.__hooks.onApplicationShutdown()
  }
})
