"use strict"
/** Redis stopped, killed, restarted: reads go on, and nothing that changed meanwhile is served afterwards. */
const { test } = require("node:test")
const assert = require("node:assert")
const { spawnSync } = require("node:child_process")
const { TestRedis } = require("./support/redis")
const { startProvider, withLongLeases } = require("./support/provider")
const { startPort } = require("./support/proxy")
const { until } = require("./support/until")

const AUTO = { options: { autoInvalidate: true } }

/** Ten entries, as ten pages of a shop. */
async function fill(provider) {
  for (let n = 0; n < 10; n += 1) {
    await until(`page ${n} is stored`, async () => {
      await provider.set({ key: `page${n}`, data: { version: 1 }, tags: [`Product:${n}`, "Product:list:*"] })
      return await provider.get({ key: `page${n}` })
    })
  }
}

async function changeAll(provider) {
  for (let n = 0; n < 10; n += 1) await provider.clear({ tags: [`Product:${n}`], ...AUTO })
}

async function served(provider) {
  const found = []
  for (let n = 0; n < 10; n += 1) {
    if (await provider.get({ key: `page${n}` })) found.push(n)
    else provider.store.release(`page${n}`)
  }
  return found
}

test("a server that is stopped: one read waits the deadline, the next do not; what was cleared meanwhile is gone afterwards", async (t) => {
  const redis = await TestRedis.start(t)
  const provider = await startProvider(t, { redisUrl: redis.url })
  await fill(provider)
  const { options } = provider.store
  const patience = options.commandTimeout
  options.commandTimeout = 300
  redis.pause()
  t.after(() => redis.resume())
  for (let n = 0; n < 10; n += 1) assert.equal(await provider.get({ key: `page${n}` }), null)
  assert.equal(provider.stats().timeouts, 1, "the server is asked once, not ten times")
  await changeAll(provider)
  // What was loaded while it could not be known whether it is still right is not stored.
  await provider.set({ key: "page0", data: { version: 1 }, tags: ["Product:0"] })
  await until("the clears are owed", () => provider.stats().owed >= 10)
  assert.ok(provider.unacknowledged().includes("Product:7"))
  options.commandTimeout = patience
  redis.resume()
  await until("the clears are delivered", () => provider.stats().owed === 0)
  assert.deepEqual(await served(provider), [])
  await fill(provider)
  assert.equal((await served(provider)).length, 10, "it caches again")
})

/**
 * A port that leads to the server, but swallows what a read that waits sends, and whatever its connection sends then.
 */
async function swallowingWaits(t, redis) {
  const found = { swallowed: 0 }
  const url = await startPort(t, (near, connect) => {
    const far = connect(redis.port)
    let swallows = false
    near.on("data", (bytes) => {
      if (!swallows && bytes.includes("\r\nWAIT\r\n")) {
        swallows = true
        found.swallowed += 1
      }
      if (!swallows) far.write(bytes)
    })
    far.on("data", (bytes) => near.write(bytes))
  })
  return Object.assign(found, { url })
}

test("a read that waits and has no answer is not the end of the cache for reads that have one", async (t) => {
  const redis = await TestRedis.start(t)
  const other = await startProvider(t, { redisUrl: redis.url })
  withLongLeases(other)
  const proxy = await swallowingWaits(t, redis)
  const provider = await startProvider(t, { redisUrl: proxy.url, commandTimeout: 3_000, waitMs: 300 })
  await fill(provider)
  assert.equal(await other.get({ key: "slow" }), null, "another process fills it")
  assert.equal(await provider.get({ key: "slow" }), null)
  assert.equal(proxy.swallowed, 1)
  assert.equal(provider.stats().timeouts, 1)
  // This process only reads from now on: nothing it sends could bring an answer that ends a silence.
  assert.equal((await served(provider)).length, 10)
  assert.equal(provider.stats().bypassed, 1)
})

test("a process that was busy for longer than the deadline does not take it for the server's fault", async (t) => {
  const redis = await TestRedis.start(t)
  const provider = await startProvider(t, { redisUrl: redis.url })
  await fill(provider)
  provider.store.options.commandTimeout = 300
  // By a program of its own, since this process is to do nothing else until the server has answered.
  const reads = () => Number(/cmdstat_mcache.fetch:calls=(\d+)/.exec(spawnSync("redis-cli", ["-p", redis.port, "INFO", "commandstats"], { encoding: "utf8" }).stdout)[1])
  const before = reads()
  const reading = provider.get({ key: "page1" })
  // Until the command has left; then nothing else runs in this process for longer than the deadline.
  await new Promise(setImmediate)
  const ends = performance.now() + 700
  while (performance.now() < ends || reads() === before);
  assert.deepEqual(await reading, { version: 1 })
  assert.equal(provider.stats().timeouts, 0)
})

test("a connection that breaks: what could not be delivered is delivered, and nothing is read before", async (t) => {
  const redis = await TestRedis.start(t)
  const provider = await startProvider(t, { redisUrl: redis.url })
  const other = await startProvider(t, { redisUrl: redis.url })
  await fill(provider)
  for (let round = 0; round < 10; round += 1) {
    await redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await changeAll(provider)
    assert.deepEqual(await served(provider), [], `round ${round}`)
    await until("the clears are delivered", () => provider.stats().owed === 0 && provider.stats().usable)
    assert.deepEqual(await served(other), [], `round ${round}, another process`)
    await until("the other process is connected", () => other.stats().usable)
    await fill(provider)
  }
})

/** A server with ten entries on disk that was killed. `keep`: started again, it serves what it loads. */
async function startKilled(t) {
  const redis = await TestRedis.start(t, { args: ["--mcache.on-restart", "keep"] })
  const provider = await startProvider(t, { redisUrl: redis.url })
  await fill(provider)
  await redis.ask("SAVE")
  await redis.kill()
  await until("the process notices", () => !provider.stats().usable)
  return { redis, provider }
}

test("a server that is killed and comes back with its data on disk serves nothing that was cleared meanwhile", async (t) => {
  // `keep` serves what was loaded: so only the clears that are sent again can make it right.
  const { redis, provider } = await startKilled(t)
  await changeAll(provider)
  await provider.clear({ key: "page9" })
  assert.deepEqual(await served(provider), [])
  await redis.run()
  await until("the clears are delivered", () => provider.stats().owed === 0)
  assert.deepEqual(await served(provider), [])
  await fill(provider)
})

test("a read by tags finds nothing while a clear is owed, in the moment when the server is back either", async (t) => {
  const { redis, provider } = await startKilled(t)
  await provider.clear({ tags: ["Product:3"], ...AUTO })
  const { client } = provider.store.server
  const back = new Promise((resolve) => client.prependOnceListener("ready", resolve)).then(() => provider.get({ tags: ["Product:3"] }))
  await redis.run()
  assert.deepEqual(await back, [], "the server was asked before it had heard of the clear")
  await until("the clears are delivered", () => provider.stats().owed === 0)
  assert.equal((await provider.get({ tags: ["Product:list:*"] })).length, 9)
})

test("a restart in the middle of a load: the load's result is not stored", async (t) => {
  const redis = await TestRedis.start(t)
  const provider = await startProvider(t, { redisUrl: redis.url })
  assert.equal(await provider.get({ key: "k" }), null)
  await redis.kill()
  await redis.run()
  await until("the process is connected", () => provider.stats().usable)
  await provider.set({ key: "k", data: [1], tags: ["T:1"] })
  assert.equal(provider.stats().refused + provider.stats().errors, 1)
  assert.equal(await provider.get({ key: "k" }), null)
})

test("a server that is full refuses to store, and goes on clearing", async (t) => {
  const redis = await TestRedis.start(t)
  const provider = await startProvider(t, { redisUrl: redis.url })
  await fill(provider)
  await redis.ask("CONFIG", "SET", "maxmemory", "1")
  await provider.set({ key: "more", data: [1] })
  assert.ok(provider.logger.said("refuses to store"))
  await changeAll(provider)
  assert.deepEqual(await served(provider), [])
  assert.equal(provider.stats().owed, 0)
})

test("too many clears while the server is away become one that clears everything", async (t) => {
  const { redis, provider } = await startKilled(t)
  for (let n = 0; n < 12_000; n += 1) provider.store.clearTags([`Other:${n}`], true)
  await until("they are one", () => provider.stats().owed === 1)
  await redis.run()
  await until("it is delivered", () => provider.stats().owed === 0)
  assert.deepEqual(await served(provider), [])
})

test("a clear that the server refuses for good does not hold up the others, nor the reads", async (t) => {
  const redis = await TestRedis.start(t)
  await redis.ask("ACL", "SETUSER", "shop", "on", ">pw", "~mc:k*", "~mc:Product:*", "~mc:\\*", "+@all")
  const provider = await startProvider(t, { redisUrl: `redis://shop:pw@127.0.0.1:${redis.port}/0` })
  await provider.set({ key: "k", data: [1], tags: ["Product:1"] })
  await provider.clear({ tags: ["Product:1", "Secret:1"], ...AUTO })
  await until("it is said", () => provider.logger.said("refuses to clear mc:Secret:1"))
  assert.equal(provider.stats().owed, 0)
  assert.equal(await provider.get({ key: "k" }), null)
})
