"use strict"
/**
 * A server that answers, but not what was asked for: what it refuses for now, what it does not tell, where it has
 * moved.
 */
const { test } = require("node:test")
const assert = require("node:assert")
const { TestRedis } = require("./support/redis")
const { startProvider, withLongLeases } = require("./support/provider")
const { startProxy } = require("./support/proxy")
const { until } = require("./support/until")
const { Away } = require("../src/wire/server")
const { isForGood } = require("../src/wire/diagnosis")

const number = async (redis, field) => Number(new RegExp(`mcache_${field}:(\\d+)`).exec(await redis.ask("INFO", "mcache"))?.[1])

const refusalOf = (redis, ...command) => redis.ask(...command).then(String, (error) => error.message)

/** What makes the server refuse clears while it goes on serving, and what ends that. */
const STATES = [
  ["NOREPLICAS", (redis) => redis.ask("CONFIG", "SET", "min-replicas-to-write", "1"), (redis) => redis.ask("CONFIG", "SET", "min-replicas-to-write", "0")],
  [
    "BUSY",
    async (redis) => {
      await redis.ask("CONFIG", "SET", "busy-reply-threshold", "1")
      redis.ask("EVAL", "while true do end", "0").catch(() => {})
      await until("the script keeps it busy", async () => (await refusalOf(redis, "PING")).startsWith("BUSY"))
    },
    (redis) => redis.ask("SCRIPT", "KILL"),
  ],
  ["NOPERM", (redis) => redis.ask("ACL", "SETUSER", "shop", "-mcache.invalidate", "-mcache.clear"), (redis) => redis.ask("ACL", "SETUSER", "shop", "+@all")],
  ["NOPERM", (redis) => redis.ask("ACL", "SETUSER", "shop", "resetkeys", "%R~*"), (redis) => redis.ask("ACL", "SETUSER", "shop", "~*")],
]

for (const [at, [code, begin, end]] of STATES.entries()) {
  for (const [what, clear] of [["by tag", (store) => store.clearTags(["T:1"])], ["by key", (store) => store.clearKey("k")]]) {
    test(`a clear ${what} that is refused with ${code} (${at}) is not acknowledged, and is sent again until it is`, async (t) => {
      const redis = await TestRedis.start(t)
      await redis.ask("ACL", "SETUSER", "shop", "on", ">pw", "~*", "+@all")
      const provider = await startProvider(t, { redisUrl: `redis://shop:pw@127.0.0.1:${redis.port}/0` })
      await provider.set({ key: "k", data: ["old"], tags: ["T:1"] })
      await begin(redis)
      assert.equal(await clear(provider.store), false)
      assert.equal(await provider.get({ key: "k" }), null, "it may be old")
      assert.ok(provider.logger.said(code), provider.logger.lines.join("\n"))
      await end(redis)
      await until("it is delivered", () => provider.stats().owed === 0)
      assert.equal(await redis.ask("MCACHE.GET", "mc:k"), null)
      await until("it caches again", async () => {
        await provider.set({ key: "k", data: ["new"], tags: ["T:1"] })
        return await provider.get({ key: "k" })
      })
    })
  }
}

test("only a refusal that concerns the tag or the key itself is for good", () => {
  for (const refusal of [
    "NOPERM this user has no permission to access the tag 'mc:Secret:1'", "NOPERM No permissions to access a key",
    "NOPERM this user has no permissions to access one of the keys used as arguments",
    "ERR tag too long: 5000 bytes, mcache.max-tag-bytes is 1024", "WRONGTYPE Operation against a key holding the wrong kind of value",
  ]) assert.ok(isForGood(refusal), refusal)
  for (const refusal of [
    "NOPERM this user has no permissions to run the 'mcache.invalidate' command", "NOPERM User shop has no permissions to run the 'mcache.clear' command",
    "MISCONF Redis is configured to save RDB snapshots", "OOM command not allowed", "NOAUTH Authentication required.", "ERR what may come",
  ]) assert.ok(!isForGood(refusal), refusal)
})

test("a clear of a tag that this user may not touch clears everything: another user may have stored what carries it", async (t) => {
  const redis = await TestRedis.start(t)
  await redis.ask("ACL", "SETUSER", "shop", "on", ">pw", "~mc:k*", "~mc:\\*", "+@all")
  const provider = await startProvider(t, { redisUrl: `redis://shop:pw@127.0.0.1:${redis.port}/0` })
  const other = await startProvider(t, { redisUrl: redis.url })
  for (const clear of [() => provider.store.clearTags(["Secret:1"]), () => provider.store.clearTags(["Secret:1"], true), () => provider.store.clearKey("other")]) {
    await other.set({ key: "k", data: ["old"], tags: ["Secret:1"] })
    assert.deepEqual(await provider.get({ key: "k" }), ["old"])
    assert.equal(await clear(), true)
    assert.equal(await provider.get({ key: "k" }), null)
    provider.store.release("k")
  }
})

test("an answer that is none acknowledges nothing", async (t) => {
  const redis = await TestRedis.start(t)
  const { store } = await startProvider(t, { redisUrl: redis.url })
  const { at } = store.server
  for (const nonsense of [Buffer.from("OK"), null, [], [0], [0, 1, Buffer.from("x")], [Buffer.from("x"), 0, 0]]) {
    store.server.at = async (node, name, ...rest) => (name === "MCACHE.INVALIDATE" ? nonsense : at.call(store.server, node, name, ...rest))
    assert.equal(await store.clearTags(["T:1"]), false)
    store.server.at = at
    await until("it is delivered", () => store.stats().owed === 0)
  }
})

for (const [what, rules] of [["may not ask for commands", ["-command"]], ["may do nothing but what is needed", ["-@all", "+@connection", "+info", "+mcache.fetch", "+mcache.get", "+mcache.set", "+mcache.token", "+mcache.release", "+mcache.clear", "+mcache.invalidate", "+mcache.settle"]]]) {
  test(`a user who ${what}: clears refuse fills and wait for near caches all the same`, async (t) => {
    const redis = await TestRedis.start(t, { args: ["--mcache.feed", "yes", "--mcache.near-lease-ms", "5000"] })
    await redis.ask("ACL", "SETUSER", "shop", "on", ">pw", "~mc:*", "+@all", ...rules)
    await until("no predecessor is waited for", async () => (await number(redis, "near_predecessors_us")) === 0)
    const provider = await startProvider(t, { redisUrl: `redis://shop:pw@127.0.0.1:${redis.port}/0` })
    const other = await startProvider(t, { redisUrl: redis.url })
    assert.equal(await other.get({ key: "page" }), null)
    assert.equal(await provider.store.clearKey("page"), true)
    await other.set({ key: "page", data: ["old"], tags: ["T:1"] })
    assert.equal(await redis.ask("MCACHE.GET", "mc:page"), null, "it was loaded before the clear")
    let [position] = await redis.ask("MCACHE.FEED", "NEW", "PREFIX", "mc:")
    let isOver = false
    const clearing = provider.store.clearTags(["T:1"]).then(() => (isOver = true))
    await until("it waits in the server", async () => (await number(redis, "settles_parked")) === 1)
    await until("the near cache has confirmed all it was told", async () => {
      ;[position] = await redis.ask("MCACHE.FEED", position, "PREFIX", "mc:")
      return isOver
    })
    await clearing
    assert.ok(provider.stats().settled > 0)
  })
}

test("a user who may not ask for commands, at a Redis without the module: the start says what to do", async (t) => {
  const redis = await TestRedis.start(t, { module: false })
  await redis.ask("ACL", "SETUSER", "shop", "on", ">pw", "~mc:*", "+@all", "-command")
  await assert.rejects(startProvider(t, { redisUrl: `redis://shop:pw@127.0.0.1:${redis.port}/0` }), /has not loaded the mcache module/)
})

test("a look at the server that has no answer changes nothing, and is made again", async (t) => {
  const redis = await TestRedis.start(t)
  const { store } = await startProvider(t, { redisUrl: redis.url })
  const { server } = store
  const { at } = server
  for (const error of [new Away("no answer"), new Error("BUSY Redis is busy running a script.")]) {
    let looks = 0
    server.at = async (node, name, ...rest) => {
      if (name === "COMMAND" && (looks += 1) === 1) throw error
      return await at.call(server, node, name, ...rest)
    }
    await server.check()
    assert.deepEqual([server.hasClear, server.hasSettle, server.lacks], [true, true, undefined])
    await until("it is made again", () => looks > 1)
    server.at = at
  }
})

test("a primary that became a replica is left for the one that its address leads to", async (t) => {
  const one = await TestRedis.start(t)
  const two = await TestRedis.start(t, { args: ["--replicaof", "127.0.0.1", one.port] })
  await until("the replica follows", async () => (await two.ask("INFO", "replication")).includes("master_link_status:up"))
  const proxy = await startProxy(t, one.port)
  const provider = await startProvider(t, { redisUrl: proxy.url })
  await provider.set({ key: "k", data: ["old"], tags: ["T:1"] })
  await until("it is replicated", async () => (await two.ask("EXISTS", "mc:k")) === 1)
  proxy.target = two.port
  await two.ask("REPLICAOF", "NO", "ONE")
  await one.ask("REPLICAOF", "127.0.0.1", two.port)
  await provider.clear({ tags: ["T:1"] })
  await until("the new primary has it", async () => (await two.ask("MCACHE.GET", "mc:k")) === null)
  await until("it is used", async () => {
    await provider.set({ key: "k", data: ["new"], tags: ["T:1"] })
    return await provider.get({ key: "k" })
  })
})

test("there is no last attempt to connect, also where the options of ioredis end them", async (t) => {
  const redis = await TestRedis.start(t)
  const provider = await startProvider(t, { redisUrl: redis.url, redisOptions: { retryStrategy: () => null } })
  await provider.set({ key: "k", data: ["old"], tags: ["T:1"] })
  await redis.kill()
  await until("the process notices", () => !provider.stats().usable)
  await provider.clear({ tags: ["T:1"] })
  await until("it is owed", () => provider.stats().owed === 1)
  await redis.run()
  await until("it is delivered", () => provider.stats().owed === 0)
})

test("connections that get no answer: a read does not wait for them longer than for the load, nor a clear than the lease", async (t) => {
  const redis = await TestRedis.start(t, { args: ["--mcache.feed", "yes", "--mcache.near-lease-ms", "5000"] })
  await until("no predecessor is waited for", async () => (await number(redis, "near_predecessors_us")) === 0)
  const other = await startProvider(t, { redisUrl: redis.url })
  withLongLeases(other)
  // The first connection is the one that reads and clears take.
  const proxy = await startProxy(t, redis.port, (count) => count > 1)
  const provider = await startProvider(t, { redisUrl: proxy.url, waitMs: 100, connectTimeout: 3_600_000, commandTimeout: 2_000 })
  assert.equal(await other.get({ key: "k" }), null)
  assert.equal(await provider.get({ key: "k" }), null, "another process loads it")
  assert.ok(proxy.count > 1)
  await redis.ask("MCACHE.FEED", "NEW", "PREFIX", "mc:")
  assert.equal(await provider.store.clearTags(["T:1"]), true)
  assert.equal(provider.stats().settledByTime, 1)
})

test("a store that ends delivers what was cleared before, or says what it could not", async (t) => {
  const redis = await TestRedis.start(t)
  const other = await startProvider(t, { redisUrl: redis.url })
  for (const key of ["a", "b"]) await other.set({ key, data: ["old"], tags: [`T:${key}`] })
  const one = await startProvider(t, { redisUrl: redis.url })
  one.store.clearTags(["T:a"])
  await one.store.end()
  assert.equal(await other.get({ key: "a" }), null)
  const two = await startProvider(t, { redisUrl: redis.url, commandTimeout: 200 })
  redis.pause()
  two.store.clearTags(["T:b"])
  await two.store.end()
  redis.resume()
  assert.ok(two.logger.said("has not acknowledged 1 clears (T:b)"), two.logger.lines.join("\n"))
})
