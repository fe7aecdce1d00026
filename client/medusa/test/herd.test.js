"use strict"
/** Several processes that miss the same key at once. */
const { test } = require("node:test")
const assert = require("node:assert")
const { fork } = require("node:child_process")
const path = require("node:path")
const { TestRedis } = require("./support/redis")
const { startProvider, withLongLeases } = require("./support/provider")
const { until } = require("./support/until")

test("of five processes that miss one key, one loads it and the others wait for it", async (t) => {
  const redis = await TestRedis.start(t)
  const members = Array.from({ length: 5 }, () => fork(path.join(__dirname, "support/herd-member.js")))
  t.after(() => members.forEach((member) => member.kill("SIGKILL")))
  const answer = (member) => new Promise((resolve) => member.once("message", resolve))
  const end = (member) => new Promise((resolve) => member.on("message", (told) => told.isOver && resolve(told)))
  // Longer waits than a busy machine needs: nothing here may depend on how fast it is.
  const options = { redisUrl: redis.url, waitMs: 60_000, leaseMs: 120_000, commandTimeout: 30_000 }
  const ready = members.map(answer)
  for (const member of members) member.send({ options, key: "hot", readers: 3 })
  await Promise.all(ready)
  const loading = Promise.race(members.map(async (member) => (await answer(member), member)))
  const results = members.map(end)
  for (const member of members) member.send("go")
  const loader = await loading
  await until("a reader of each process waits", async () => (await redis.ask("INFO", "clients")).includes("blocked_clients:5"))
  loader.send("loaded")
  const ended = await Promise.all(results)
  assert.equal(ended.reduce((sum, { loads }) => sum + loads, 0), 1)
  assert.ok(ended.every(({ stats }) => stats.waited > 0))
})

test("of many readers of one process one loads, and one connection is enough for the others to wait", async (t) => {
  const redis = await TestRedis.start(t)
  const options = { redisUrl: redis.url, waiters: 1, waitMs: 60_000, leaseMs: 120_000, commandTimeout: 30_000 }
  const { store } = await startProvider(t, options)
  withLongLeases({ store })
  let loads = 0
  const read = async () => {
    const found = await store.get("hot")
    if (found) return found
    loads += 1
    await until("another reader waits", async () => (await redis.ask("INFO", "clients")).includes("blocked_clients:1"))
    await store.set({ key: "hot", data: { n: loads }, tags: ["T:1"] })
    return { n: loads }
  }
  const found = await Promise.all(Array.from({ length: 20 }, read))
  assert.equal(loads, 1)
  assert.ok(found.every(({ n }) => n === 1))
})

test("where loads fail, the readers of one process that waited take turns", async (t) => {
  const redis = await TestRedis.start(t)
  const options = { redisUrl: redis.url, waitMs: 60_000, leaseMs: 120_000, commandTimeout: 30_000 }
  const { store } = await startProvider(t, options)
  withLongLeases({ store })
  const READERS = 20
  let [asked, underWay, most, loads] = [0, 0, 0, 0]
  const fetch = store.server.call
  store.server.call = function (key, command, ...rest) {
    if (command === "MCACHE.FETCH") asked += 1
    return fetch.call(this, key, command, ...rest)
  }
  const read = async () => {
    const found = await store.get("hot")
    if (found) return found
    underWay += 1
    most = Math.max(most, underWay)
    // All have come, and one of them waits for all.
    const others = READERS - 1 - loads
    if (others > 0) await until("another reader waits", async () => asked >= READERS && (await redis.ask("INFO", "clients")).includes("blocked_clients:1"))
    loads += 1
    underWay -= 1
    if (loads === READERS) await store.set({ key: "hot", data: [1] })
    else store.release("hot")
    return null
  }
  await Promise.all(Array.from({ length: READERS }, read))
  assert.deepEqual({ most, loads }, { most: 1, loads: READERS })
})

test("a process that fails to load lets the next one try", async (t) => {
  const redis = await TestRedis.start(t)
  const slow = { redisUrl: redis.url, waitMs: 60_000, leaseMs: 120_000, commandTimeout: 30_000 }
  const one = await startProvider(t, slow)
  withLongLeases(one)
  const two = await startProvider(t, slow)
  assert.equal(await one.get({ key: "k" }), null)
  const second = two.get({ key: "k" })
  await until("the second waits", async () => (await redis.ask("INFO", "clients")).includes("blocked_clients:1"))
  // Medusa stores what it loaded, nothing included.
  await one.set({ key: "k", data: undefined })
  assert.equal(await second, null)
  await two.set({ key: "k", data: [2] })
  assert.deepEqual(await one.get({ key: "k" }), [2])
})

test("a process that dies while it loads lets the next one try at once", async (t) => {
  const redis = await TestRedis.start(t)
  const slow = { redisUrl: redis.url, waitMs: 60_000, leaseMs: 120_000, commandTimeout: 30_000 }
  const one = await startProvider(t, slow)
  withLongLeases(one)
  const two = await startProvider(t, slow)
  assert.equal(await one.get({ key: "k" }), null)
  const second = two.get({ key: "k" })
  await until("the second waits", async () => (await redis.ask("INFO", "clients")).includes("blocked_clients:1"))
  one.store.close()
  assert.equal(await second, null)
})

test("a load that fails without a word makes the next readers wait once, not each time", async (t) => {
  const redis = await TestRedis.start(t)
  const provider = await startProvider(t, { redisUrl: redis.url, leaseMs: 50, waitMs: 60_000, commandTimeout: 30_000 })
  assert.equal(await provider.get({ key: "missing" }), null)
  // The lease ends by itself: the reader that waited for it is the next to try.
  assert.equal(await provider.get({ key: "missing" }), null)
  await until("the first load counts as failed", () => provider.store.fills.age("missing") > 50)
  const before = await redis.calls("MCACHE.FETCH")
  for (let n = 0; n < 5; n += 1) assert.equal(await provider.get({ key: "missing" }), null)
  assert.equal(await redis.calls("MCACHE.FETCH"), before, "no lease was asked for")
  await provider.set({ key: "missing", data: [1], tags: ["T:1"] })
  assert.deepEqual(await provider.get({ key: "missing" }), [1])
})

test("waiting ends at its limit, and what is loaded then is still safe to store", async (t) => {
  const redis = await TestRedis.start(t)
  const one = await startProvider(t, { redisUrl: redis.url })
  const two = await startProvider(t, { redisUrl: redis.url, waitMs: 30 })
  assert.equal(await one.get({ key: "k" }), null)
  assert.equal(await two.get({ key: "k" }), null)
  assert.ok(await two.store.clearTags(["T:1"]))
  await two.set({ key: "k", data: ["old"], tags: ["T:1"] })
  assert.equal(await redis.ask("MCACHE.GET", "mc:k"), null, "loaded before the clear")
})

test("more waiting reads than connections for it: the rest loads, nothing hangs", async (t) => {
  const redis = await TestRedis.start(t)
  const one = await startProvider(t, { redisUrl: redis.url })
  withLongLeases(one)
  const two = await startProvider(t, { redisUrl: redis.url, waiters: 2, waitMs: 60_000, commandTimeout: 30_000 })
  const keys = Array.from({ length: 5 }, (_, n) => `k${n}`)
  for (const key of keys) assert.equal(await one.get({ key }), null)
  const reads = keys.map((key) => two.get({ key }).then((found) => [key, found]))
  await until("two wait", async () => (await redis.ask("INFO", "clients")).includes("blocked_clients:2"))
  for (const key of keys) await one.set({ key, data: [key] })
  const found = await Promise.all(reads)
  assert.equal(found.filter(([, value]) => value).length, 2)
})

test("close to its expiry one reader renews a value, the others are served", async (t) => {
  const redis = await TestRedis.start(t)
  // A load that is thought to take ten seconds makes one read in seven a renewal when twenty are left.
  const provider = await startProvider(t, { redisUrl: redis.url, earlyMs: 10_000 })
  withLongLeases(provider)
  await provider.set({ key: "k", data: [1], ttl: 20 })
  await until("a reader is chosen", async () => (await provider.get({ key: "k" })) === null)
  assert.deepEqual(await provider.get({ key: "k" }), [1])
  await provider.set({ key: "k", data: [2], ttl: 1000 })
  assert.deepEqual(await provider.get({ key: "k" }), [2])
})
