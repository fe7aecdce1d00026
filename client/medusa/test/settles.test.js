"use strict"
/** A clear is over when no near cache of another process serves what it concerned: here a subscription made by hand. */
const { test } = require("node:test")
const assert = require("node:assert")
const { TestRedis, startCluster } = require("./support/redis")
const { startProvider } = require("./support/provider")
const { until } = require("./support/until")

const LEASE_MS = 5_000

async function startFed(t) {
  const redis = await TestRedis.start(t, { args: ["--mcache.feed", "yes", "--mcache.near-lease-ms", String(LEASE_MS)] })
  // A server that has just started waits for leases that a server before it may have granted.
  await until("no predecessor is waited for", async () => (await number(redis, "near_predecessors_us")) === 0)
  return redis
}

async function number(redis, field) {
  return Number(new RegExp(`mcache_${field}:(\\d+)`).exec(await redis.ask("INFO", "mcache"))?.[1])
}

/** Whether a promise has an outcome. */
async function isOver(promise) {
  return await Promise.race([promise.then(() => true), new Promise((resolve) => setImmediate(() => resolve(false)))])
}

for (const [what, clear] of [
  ["by tag", (store) => store.clearTags(["Product:1"])],
  ["automatic", (store) => store.clearTags(["Product:1"], true)],
  ["by key", (store) => store.clearKey("page")],
  ["of everything", (store) => store.clearTags(["*"])],
]) {
  test(`a clear ${what} waits until a near cache has confirmed it`, async (t) => {
    const redis = await startFed(t)
    const provider = await startProvider(t, { redisUrl: redis.url })
    await until("stored", async () => {
      await provider.set({ key: "page", data: { version: 1 }, tags: ["Product:1"] })
      return await provider.get({ key: "page" })
    })
    const [first] = await redis.ask("MCACHE.FEED", "NEW", "PREFIX", "mc:")
    // Two of them at a time share one SETTLE or the next.
    const clearing = Promise.all([clear(provider.store), clear(provider.store)])
    await until("it waits in the server", async () => (await number(redis, "settles_parked")) >= 1)
    assert.equal(await isOver(clearing), false)
    let position = first
    await until("the near cache has confirmed all it was told", async () => {
      ;[position] = await redis.ask("MCACHE.FEED", position, "PREFIX", "mc:")
      return await isOver(clearing)
    })
    const stats = provider.stats()
    assert.ok(stats.settled >= 1, JSON.stringify(stats))
    assert.equal(stats.settledByTime, 0)
    assert.equal(stats.owed, 0)
  })
}

test("a clear that comes while an earlier one is owed waits as well", async (t) => {
  const redis = await startFed(t)
  const provider = await startProvider(t, { redisUrl: redis.url })
  const { options } = provider.store
  const patience = options.commandTimeout
  const [first] = await redis.ask("MCACHE.FEED", "NEW", "PREFIX", "mc:")
  redis.pause()
  t.after(() => redis.resume())
  options.commandTimeout = 100
  assert.equal(await provider.store.clearTags(["Product:1"]), false)
  options.commandTimeout = patience
  // The timer sends nothing: the clear that comes next is what sends the one that is owed.
  clearTimeout(provider.store.clears.timer)
  redis.resume()
  await until("the server answers again", () => provider.stats().usable)
  assert.equal(provider.stats().owed, 1)
  const clearing = provider.store.clearTags(["Product:2"])
  await until("it is acknowledged", () => provider.stats().owed === 0)
  assert.equal(await isOver(clearing), false, "a near cache may serve it")
  let position = first
  await until("the near cache has confirmed all it was told", async () => {
    ;[position] = await redis.ask("MCACHE.FEED", position, "PREFIX", "mc:")
    return await isOver(clearing)
  })
  assert.equal(await clearing, true)
  assert.equal(provider.stats().settledByTime, 0)
})

test("a clear in the moment when a server is reached for the first time is as good as later ones", async (t) => {
  const redis = await startFed(t)
  await redis.kill()
  const provider = await startProvider(t, { redisUrl: redis.url, connectTimeout: 200 })
  const { client } = provider.store.server
  const clearing = new Promise((resolve) => client.prependOnceListener("ready", resolve)).then(() => provider.store.clearKey("page"))
  await redis.run()
  await clearing
  await until("it is delivered", () => provider.stats().owed === 0)
  assert.equal(await redis.calls("mcache.clear"), 1, "a plain UNLINK would let a fill of the key go on")
})

test("a near cache of another prefix is not waited for, nor any where settling is switched off", async (t) => {
  const redis = await startFed(t)
  const provider = await startProvider(t, { redisUrl: redis.url })
  await redis.ask("MCACHE.FEED", "NEW", "PREFIX", "other:")
  await provider.store.clearTags(["Product:1"])
  assert.equal(provider.stats().settled, 0)
  const without = await startProvider(t, { redisUrl: redis.url, settle: false })
  await redis.ask("MCACHE.FEED", "NEW", "PREFIX", "mc:")
  await without.store.clearTags(["Product:1"])
  assert.equal(without.stats().settled, 0)
  assert.equal(await redis.calls("mcache.settle"), 0)
})

test("in a cluster the near caches of every primary are waited for", async (t) => {
  const nodes = await startCluster(t, 3, ["--mcache.feed", "yes", "--mcache.near-lease-ms", String(LEASE_MS)])
  const cluster = nodes.map(({ port }) => ({ host: "127.0.0.1", port }))
  const provider = await startProvider(t, { cluster, commandTimeout: 2_000 })
  for (const node of nodes) await until("no predecessor is waited for", async () => (await number(node, "near_predecessors_us")) === 0)
  const positions = new Map()
  for (const node of nodes.slice(0, 2)) positions.set(node, (await node.ask("MCACHE.FEED", "NEW"))[0])
  const clearing = provider.store.clearTags(["Product:1"])
  for (const node of positions.keys()) await until("it waits at both", async () => (await number(node, "settles_parked")) >= 1)
  const confirm = async (node) => positions.set(node, (await node.ask("MCACHE.FEED", positions.get(node)))[0])
  await confirm(nodes[0])
  await confirm(nodes[0])
  assert.equal(await isOver(clearing), false, "one of two is not enough")
  await until("the other has confirmed", async () => {
    await confirm(nodes[1])
    return await isOver(clearing)
  })
  assert.equal(await clearing, true)
  assert.equal(provider.stats().settledByTime, 0)
})

test("when the server goes away meanwhile, time settles", async (t) => {
  const redis = await startFed(t)
  const provider = await startProvider(t, { redisUrl: redis.url })
  await redis.ask("MCACHE.FEED", "NEW")
  const clearing = provider.store.clearTags(["Product:1"])
  await until("it waits in the server", async () => (await number(redis, "settles_parked")) >= 1)
  await redis.kill()
  await clearing
  assert.equal(provider.stats().settledByTime, 1)
  assert.equal(provider.stats().owed, 0)
})
