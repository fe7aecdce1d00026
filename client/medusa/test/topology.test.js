"use strict"
/** Cluster and Sentinel, through ioredis. */
const { test } = require("node:test")
const assert = require("node:assert")
const { TestRedis, startCluster, startSentinel } = require("./support/redis")
const { startProvider } = require("./support/provider")
const { until } = require("./support/until")

test("a cluster", async (t) => {
  const nodes = await startCluster(t, 3)
  const cluster = nodes.map(({ port }) => ({ host: "127.0.0.1", port }))
  const provider = await startProvider(t, { cluster, commandTimeout: 2_000 })
  const keys = Array.from({ length: 30 }, (_, n) => `k${n}`)
  const fill = async () => {
    for (const key of keys) {
      await until(`${key} is stored`, async () => {
        await provider.set({ key, data: [key], tags: ["T:1", `K:${key}`] })
        return await provider.get({ key })
      })
    }
  }
  const live = async () => {
    const found = await Promise.all(keys.map((key) => provider.get({ key })))
    keys.forEach((key, n) => found[n] || provider.store.release(key))
    return found.filter(Boolean).length
  }
  const spread = async () => Promise.all(nodes.map((node) => node.ask("DBSIZE")))

  await t.test("keys are spread over the nodes, without being redirected", async () => {
    await fill()
    assert.ok((await spread()).every((count) => count > 0))
    const moved = await Promise.all(nodes.map(async (node) => /errorstat_MOVED/.test(await node.ask("INFO", "errorstats"))))
    assert.deepEqual(moved, [false, false, false])
  })
  await t.test("reading by tags asks every node", async () => {
    assert.equal((await provider.get({ tags: ["T:1"] })).length, keys.length)
  })
  await t.test("a clear reaches every node", async () => {
    await provider.clear({ tags: ["T:1"] })
    assert.equal(await live(), 0)
  })
  await t.test("a key is cleared where it is", async () => {
    await fill()
    for (const key of keys.slice(0, 10)) await provider.clear({ key })
    assert.equal(await live(), keys.length - 10)
  })
  await t.test("a fill that a clear overtook is refused on every node", async () => {
    await provider.clear({ tags: ["*"] })
    for (const key of keys) assert.equal(await provider.get({ key }), null)
    assert.ok(await provider.store.clearTags(["T:1"], true))
    await Promise.all(keys.map((key) => provider.set({ key, data: ["old"], tags: ["T:1"] })))
    assert.equal(await live(), 0)
  })
  await t.test("while one node is stopped its keys go to the database, the others are served; afterwards nothing old is", async () => {
    await fill()
    provider.store.options.commandTimeout = 300
    nodes[0].pause()
    try {
      await provider.clear({ tags: keys.map((key) => `K:${key}`) })
      await until("the clear is owed", () => provider.stats().owed > 0)
      assert.equal(await live(), 0)
      await provider.set({ key: "k0", data: ["old"], tags: ["T:1"] })
    } finally {
      nodes[0].resume()
      provider.store.options.commandTimeout = 2_000
    }
    await until("it is delivered", () => provider.stats().owed === 0)
    assert.equal(await live(), 0)
    await fill()
  })
})

test("Sentinel: after a failover the new primary is used, and clears of the time between reach it", async (t) => {
  const primary = await TestRedis.start(t)
  const replica = await TestRedis.start(t, { args: ["--replicaof", "127.0.0.1", primary.port] })
  await until("the replica follows", async () => (await replica.ask("INFO", "replication")).includes("master_link_status:up"))
  const sentinel = await startSentinel(t, primary)
  await until("the Sentinel knows the replica", async () => (await sentinel.ask("SENTINEL", "REPLICAS", "shop")).length === 1)
  const redisOptions = { sentinels: [{ host: "127.0.0.1", port: sentinel.port }], name: "shop" }
  const provider = await startProvider(t, { redisUrl: undefined, redisOptions })
  await provider.set({ key: "k", data: ["old"], tags: ["T:1"] })
  await provider.set({ key: "l", data: ["kept"], tags: ["T:2"] })
  await until("it is replicated", async () => (await replica.ask("EXISTS", "mc:k", "mc:l")) === 2)
  await primary.kill()
  await until("the process notices", () => !provider.stats().usable)
  await provider.clear({ tags: ["T:1"], options: { autoInvalidate: true } })
  await until("the new primary is used", () => provider.stats().usable && provider.stats().owed === 0)
  assert.equal(await provider.get({ key: "k" }), null)
  assert.deepEqual(await provider.get({ key: "l" }), ["kept"])
})
