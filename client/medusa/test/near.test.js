"use strict"
/** The near cache on a real server: the option, what a hit costs, leases, clears of this and of other processes. */
const { test } = require("node:test")
const assert = require("node:assert")
const http = require("node:http")
const { TestRedis } = require("./support/redis")
const { Store } = require("../src/store")
const { listener, startProvider, PATIENT } = require("./support/provider")
const { until } = require("./support/until")
const { readOptions } = require("../src/options")
const { loadModule } = require("../src/module/loader")
const { tapRequests } = require("../src/module/taps")
const { current, mayBeNear, derivesFromNowOn, inRequest, inQuery, Scope } = require("../src/module/context")
const { Calls } = require("../src/module/calls")

const NEAR = { bytes: 1 << 20 }
const HOW = { near: true }
const info = async (redis, name) => Number(new RegExp(`${name}:(\\d+)`).exec(await redis.ask("INFO", "mcache"))[1])

/** isSettling: clears are waited for; a server that has just started lets them wait for a server before it at first. */
async function startFed(t, { leaseMs = 1_000, isSettling = false } = {}) {
  const redis = await TestRedis.start(t, { args: ["--mcache.feed", "yes", "--mcache.near-lease-ms", String(leaseMs)] })
  if (isSettling) await until("no predecessor is waited for", async () => (await info(redis, "near_predecessors_us")) === 0)
  return redis
}

async function startStore(t, redis, options = {}) {
  const logger = listener()
  const store = await new Store({ options: { redisUrl: redis.url, near: NEAR, ...PATIENT, ...options }, logger }).start()
  t.after(() => store.close())
  return Object.assign(store, { logger })
}

/** Stores a value and reads it until it is near. */
async function fill(store, key, data, tags, how = {}) {
  await until(`${key} is near`, async () => {
    await store.set({ key, data, tags, ...how })
    await store.get(key, HOW)
    const { nearHits } = store.stats()
    await store.get(key, HOW)
    return store.stats().nearHits > nearHits
  })
}

test("the option is checked, and what it cannot be with is said", async (t) => {
  const redisUrl = "redis://127.0.0.1:6379"
  for (const near of [true, {}, { bytes: "1" }, { bytes: 5 }, { bytes: NaN }, null]) assert.throws(() => readOptions({ redisUrl, near }), /near must be false or/)
  assert.throws(() => readOptions({ redisUrl, near: NEAR, settle: false }), /near needs settle/)
  assert.throws(() => readOptions({ cluster: [{ host: "h", port: 1 }], near: NEAR }), /not with a Redis Cluster/)
  const redisOptions = { sentinels: [{ host: "h", port: 1 }], name: "shop" }
  assert.throws(() => readOptions({ redisOptions, near: NEAR }), /not with Sentinels/)
  assert.equal(readOptions({ redisUrl }).near, false)
  await assert.rejects(startProvider(t, { redisUrl, near: NEAR }), /an option of the module/)
  await assert.rejects(loadModule({ options: { redisUrl, near: NEAR, extensions: { writes: false } } }), /near needs the extension writes/)
})

test("a server whose feed is switched off: the start names the switch", async (t) => {
  const redis = await TestRedis.start(t)
  await assert.rejects(startStore(t, redis), /its switch mcache.feed is "no"/)
})

test("a user who may not follow: the start says what to allow", async (t) => {
  const redis = await startFed(t)
  await redis.ask("ACL", "SETUSER", "shop", "on", ">pw", "~mc:*", "+@all", "-mcache.feed")
  await assert.rejects(startStore(t, { url: `redis://shop:pw@127.0.0.1:${redis.port}` }), /Allow MCACHE.FEED/)
})

test("a server that is away does not end the start; the near cache is used once it has come", async (t) => {
  const redis = await startFed(t)
  await redis.kill()
  const store = await startStore(t, redis)
  await redis.run()
  await until("the store is connected", () => store.stats().usable)
  await fill(store, "k", [1], ["T:1"])
})

test("a hit sends nothing to the server and is a fresh value each time; other reads do not use it", async (t) => {
  const redis = await startFed(t, { leaseMs: 5_000 })
  const store = await startStore(t, redis)
  const large = { rows: Array.from({ length: 500 }, (_, n) => ({ id: `prod_${n}`, title: "é" })) }
  const exact = { value: [{ at: new Date(5) }] }
  await fill(store, "large", large, ["T:1"])
  await fill(store, "exact", exact, ["T:1"], { sealed: store.seal(exact, { isExact: true }) })
  const before = { fetches: await redis.calls("mcache.fetch"), gets: await redis.calls("mcache.get"), hits: store.stats().nearHits }
  for (let n = 0; n < 100; n += 1) {
    const found = await store.get("large", HOW)
    assert.deepEqual(found, large)
    found.rows[0].title = "written by a route"
    found.rows.pop()
    assert.deepEqual(await store.get("exact", HOW), exact)
  }
  assert.equal(store.stats().nearHits - before.hits, 200)
  assert.equal(await redis.calls("mcache.fetch"), before.fetches)
  await store.get("large")
  assert.equal(await redis.calls("mcache.fetch"), before.fetches + 1)
  assert.equal(await redis.calls("mcache.get"), before.gets)
})

test("once a clear of another process has resolved, nothing older is served: by tag, by auto, by key, everything", async (t) => {
  const redis = await startFed(t, { leaseMs: 5_000, isSettling: true })
  const store = await startStore(t, redis)
  const other = await startStore(t, redis)
  const ways = [() => other.clearTags(["T:1"]), () => other.clearTags(["T:1"], true), () => other.clearKey("k"), () => other.clearTags(["*"])]
  for (let round = 0; round < 40; round += 1) {
    await fill(store, "k", { round }, ["T:1"])
    const { nearHits } = store.stats()
    assert.equal(await ways[round % ways.length](), true)
    assert.equal(await store.get("k", HOW), null, `round ${round}`)
    assert.equal(store.stats().nearHits, nearHits)
    store.release("k")
  }
  assert.equal(other.stats().settledByTime, 0)
})

test("an own clear takes effect in the same turn, and what was asked for before is not put away", async (t) => {
  const redis = await startFed(t, { leaseMs: 5_000, isSettling: true })
  const store = await startStore(t, redis)
  for (const clear of [() => store.clearTags(["T:1"]), () => store.clearKey("k")]) {
    await fill(store, "k", [1], ["T:1"])
    const cleared = clear()
    assert.equal(store.near.get("mc:k"), undefined)
    assert.equal(await store.get("k", HOW), null)
    store.release("k")
    await cleared
    await store.set({ key: "k", data: [2], tags: ["T:1"] })
    const reading = store.get("k", HOW)
    const again = clear()
    await Promise.all([reading, again])
    assert.equal(store.near.entries.size, 0)
  }
})

test("what other programs change comes with the feed; MANUAL entries are spared by AUTO", async (t) => {
  const redis = await startFed(t)
  const store = await startStore(t, redis)
  const changes = [
    ["DEL", "mc:k"],
    ["MCACHE.SET", "mc:k", "100", "x", "TAGS", "mc:T:1"],
    ["EXPIRE", "mc:k", "1000"],
    ["MCACHE.INVALIDATE", "SOFT", "TAGS", "mc:T:1"],
    ["FLUSHALL"],
  ]
  for (const change of changes) {
    await redis.ask("DEL", "mc:k")
    await fill(store, "k", [1], ["T:1"])
    await redis.ask(...change)
    await until(`${change} is told`, () => !store.near.entries.has("mc:k"))
  }
  await fill(store, "manual", [1], ["T:1"], { autoInvalidate: false })
  await fill(store, "auto", [1], ["T:1"])
  await redis.ask("MCACHE.INVALIDATE", "AUTO", "TAGS", "mc:T:1")
  await until("the one is gone", () => !store.near.entries.has("mc:auto"))
  assert.ok(store.near.entries.has("mc:manual"))
})

test("a server that does not answer: nothing is served past the lease, and the same again once it answers", async (t) => {
  const redis = await startFed(t, { leaseMs: 300 })
  const store = await startStore(t, redis, { commandTimeout: 500 })
  await fill(store, "k", [1], ["T:1"])
  redis.pause()
  await until("the lease is over", () => !store.near.serves())
  const { nearHits } = store.stats()
  assert.equal(await store.get("k", HOW), null)
  assert.equal(store.stats().nearHits, nearHits)
  redis.resume()
  await fill(store, "k", [1], ["T:1"])
})

test("a clear that could not be delivered holds everything near back until it is", async (t) => {
  const redis = await startFed(t, { leaseMs: 5_000 })
  const store = await startStore(t, redis, { commandTimeout: 200 })
  await fill(store, "k", [1], ["T:1"])
  redis.pause()
  assert.equal(await store.clearTags(["Other:1"]), false)
  const { nearHits } = store.stats()
  assert.equal(await store.get("k", HOW), null)
  assert.equal(store.stats().nearHits, nearHits)
  redis.resume()
  await until("it is delivered", () => store.stats().owed === 0)
  assert.equal(store.near.entries.size, 0)
  await fill(store, "k", [1], ["T:1"])
})

test("a server that is started again: everything is forgotten", async (t) => {
  const redis = await startFed(t)
  const store = await startStore(t, redis)
  await fill(store, "k", [1], ["T:1"])
  await redis.kill()
  await redis.run()
  await until("it is forgotten", () => store.near.serves() && store.near.entries.size === 0)
  await until("the store is connected", () => store.stats().usable)
  assert.equal(await store.get("k", HOW), null)
  store.release("k")
  await fill(store, "k", [2], ["T:1"])
})

test("the feed switched off later is logged with the name of the switch, and nothing is served once the lease is over", async (t) => {
  const redis = await startFed(t, { leaseMs: 300 })
  const store = await startStore(t, redis)
  await fill(store, "k", [1], ["T:1"])
  await redis.ask("CONFIG", "SET", "mcache.feed", "no")
  await until("it is said", () => store.logger.said("its switch mcache.feed"))
  await until("the lease is over", () => !store.near.serves())
  assert.deepEqual(await store.get("k", HOW), [1], "from the server")
  await redis.ask("CONFIG", "SET", "mcache.feed", "yes")
  await fill(store, "k", [1], ["T:1"])
})

test("a store that is closed tells the server, so no clear waits for it", async (t) => {
  const redis = await startFed(t, { leaseMs: 5_000 })
  const store = await startStore(t, redis)
  await fill(store, "k", [1], ["T:1"])
  const { position } = store.near.ask()
  store.close()
  await until("its connections are gone", async () => !(await redis.ask("CLIENT", "LIST")).includes("medusa-mcache"))
  assert.equal(await redis.ask("MCACHE.FEED", position, "END"), 0, "it has ended already")
  assert.equal(store.near.get("mc:k"), undefined)
})

test("what is put away keeps no more memory than it says, by the order of it", async (t) => {
  const redis = await startFed(t)
  const store = await startStore(t, redis)
  let n = 0
  const { counts, entries } = store.near
  await until("much was put away and evicted", async () => {
    for (const end = n + 100; n < end; n += 1) {
      await store.set({ key: `k${n}`, data: { text: "x".repeat(5_000 - (n % 600)) }, tags: ["T:1"] })
      await store.get(`k${n}`, HOW)
    }
    return counts.evicted > 300 && entries.size > 100
  })
  const held = [...entries.values()]
  assert.ok(held.every(({ value }) => value.plain.buffer.byteLength === value.length), "each has memory of its own")
  assert.ok(held.reduce((sum, { value }) => sum + value.length, 0) <= NEAR.bytes)
})

test("only answers to the store may be near, nothing that becomes a part of what is stored", async () => {
  assert.equal(mayBeNear(undefined), false)
  assert.equal(mayBeNear(new Scope({ isStore: false })), false)
  await inRequest(true, async () => {
    const request = current()
    assert.equal(mayBeNear(request), true)
    await inQuery({}, async (scope) => {
      assert.equal(mayBeNear(scope), true)
      scope.isFilling = true
      await inQuery({}, async (inner) => assert.equal(mayBeNear(inner), false, "part of a whole"))
      scope.isFilling = false
      scope.isFresh = true
      assert.equal(mayBeNear(scope), false)
    })
    await inQuery({}, async (scope) => {
      derivesFromNowOn(scope)
      assert.equal(mayBeNear(scope), false)
    })
    assert.equal(mayBeNear(request), false, "and the rest of the request")
  })
})

test("a call that another call reads while it is being made is not read near", async () => {
  const reads = []
  const store = {
    get: async (key, { near }) => void reads.push(near),
    set: async () => true,
    release() {},
    seal: async () => null,
  }
  const { Schema } = require("../src/module/schema")
  const { Policy } = require("../src/module/policy")
  const { schemaOf, TYPES, CONFIGS } = require("./support/shop")
  const schema = new Schema(schemaOf(TYPES), CONFIGS)
  const calls = new Calls({ store, policy: new Policy({ schema, queries: true, reuse: false }), schema, current, ttl: async () => 1 })
  const service = {
    listRegions: async () => [{ id: "reg_1" }],
    async retrieveRegion() {
      return (await service.listRegions({ id: "reg_1" }))[0]
    },
  }
  calls.watch(service, "region")
  await inRequest(true, async () => {
    await service.retrieveRegion("reg_1")
    await service.listRegions({ id: "reg_1" })
  })
  assert.deepEqual(reads, [true, false, true])
})

test("a request's answer waits until what it cleared is settled", async (t) => {
  tapRequests()
  let settle
  const settled = new Promise((resolve) => (settle = resolve))
  let ended = false
  const server = http.createServer((request, response) => {
    if (request.url === "/admin/change") current().hold(settled)
    response.end("done", () => (ended = true))
  })
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  t.after(() => server.close())
  const ask = (path) => fetch(`http://127.0.0.1:${server.address().port}${path}`).then((response) => response.text())
  const changing = ask("/admin/change")
  assert.equal(await ask("/store/read"), "done", "others do not wait")
  ended = false
  assert.equal(await Promise.race([changing, new Promise((resolve) => setImmediate(resolve, "open"))]), "open")
  assert.equal(ended, false)
  settle()
  assert.equal(await changing, "done")
})
