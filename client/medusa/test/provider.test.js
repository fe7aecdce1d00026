"use strict"
/** What Medusa expects of a caching provider, on a real server. */
const { test } = require("node:test")
const assert = require("node:assert")
const { TestRedis } = require("./support/redis")
const { startProvider } = require("./support/provider")
const { seededRandom } = require("./support/random")
const { until } = require("./support/until")

async function bed(t, options = {}) {
  const redis = await TestRedis.start(t)
  return { redis, provider: await startProvider(t, { redisUrl: redis.url, ...options }) }
}

test("storing and reading", async (t) => {
  const { provider, redis } = await bed(t)

  await t.test("a value comes back as it was", async () => {
    const data = { rows: [{ id: "prod_1", title: "Shirt", price: 1.5, tags: [] }], metadata: { count: 1, skip: 0 } }
    await provider.set({ key: "a", data, tags: ["Product:prod_1"] })
    assert.deepEqual(await provider.get({ key: "a" }), data)
  })
  await t.test("an empty list and an empty object are values", async () => {
    await provider.set({ key: "list", data: [] })
    await provider.set({ key: "object", data: {} })
    assert.deepEqual(await provider.get({ key: "list" }), [])
    assert.deepEqual(await provider.get({ key: "object" }), {})
  })
  await t.test("what comes back is fresh: changing it changes nothing", async () => {
    const one = await provider.get({ key: "a" })
    one.rows.length = 0
    assert.equal((await provider.get({ key: "a" })).rows.length, 1)
  })
  await t.test("a key that is not there is null", async () => {
    assert.equal(await provider.get({ key: "nothing" }), null)
  })
  await t.test("with key and tags the key decides", async () => {
    assert.deepEqual(await provider.get({ key: "list", tags: ["Product:prod_1"] }), [])
    assert.equal(await provider.get({ key: "none", tags: ["Product:prod_1"] }), null)
  })
  await t.test("neither key nor tags is nothing", async () => {
    assert.equal(await provider.get({}), null)
  })
  await t.test("a second set replaces value and tags", async () => {
    await provider.set({ key: "twice", data: [1], tags: ["Old:1"] })
    await provider.set({ key: "twice", data: [2], tags: ["New:1"] })
    await provider.clear({ tags: ["Old:1"] })
    assert.deepEqual(await provider.get({ key: "twice" }), [2])
    await provider.clear({ tags: ["New:1"] })
    assert.equal(await provider.get({ key: "twice" }), null)
  })
  await t.test("nothing loaded stores nothing", async () => {
    for (const data of [undefined, null]) {
      assert.equal(await provider.get({ key: "empty" }), null)
      await provider.set({ key: "empty", data })
    }
    assert.equal(await redis.ask("EXISTS", "mc:empty"), 0)
  })
  await t.test("a large value is compressed, and smaller in the server", async () => {
    const data = { text: "cotton ".repeat(20_000) }
    await provider.set({ key: "large", data })
    assert.deepEqual(await provider.get({ key: "large" }), data)
    assert.ok((await redis.ask("MEMORY", "USAGE", "mc:large")) < 20_000)
  })
  await t.test("keys and tags of any text", async () => {
    for (const key of ["with space", "ключ", "a:b*c", "{brace}", "TAGS"]) {
      await provider.set({ key, data: [key], tags: [`T:${key}`, "TAGS", "AUTO"] })
      assert.deepEqual(await provider.get({ key }), [key])
      await provider.clear({ tags: [`T:${key}`] })
      assert.equal(await provider.get({ key }), null)
    }
  })
})

test("times to live", async (t) => {
  const { provider, redis } = await bed(t, { ttl: 77 })
  const left = async (key) => redis.ask("TTL", `mc:${key}`)
  const isTheOption = (seconds) => seconds > 0 && seconds <= 77

  await t.test("the ttl is in seconds", async () => {
    await provider.set({ key: "a", data: [1], ttl: 1000 })
    assert.ok((await left("a")) > 77)
  })
  await t.test("without one the option counts", async () => {
    await provider.set({ key: "b", data: [1] })
    assert.ok(isTheOption(await left("b")))
  })
  await t.test("0 is no expiry", async () => {
    await provider.set({ key: "c", data: [1], ttl: 0 })
    assert.equal(await left("c"), -1)
  })
  await t.test("an expired value is null", async () => {
    await provider.set({ key: "d", data: [1], ttl: 0.02 })
    await until("it expires", async () => (await provider.get({ key: "d" })) === null)
  })
  await t.test("nonsense for a ttl becomes the option", async () => {
    await provider.set({ key: "e", data: [1], ttl: NaN })
    assert.ok(isTheOption(await left("e")))
  })
})

test("reading by tags", async (t) => {
  const { provider } = await bed(t)
  await provider.set({ key: "1", data: { n: 1 }, tags: ["A:1", "A:list:*"] })
  await provider.set({ key: "2", data: { n: 2 }, tags: ["A:2", "A:list:*"] })
  await provider.set({ key: "3", data: { n: 3 }, tags: ["B:1"] })
  const by = async (...tags) => (await provider.get({ tags })).map((value) => value.n).sort()

  await t.test("all entries that carry the tag", async () => assert.deepEqual(await by("A:list:*"), [1, 2]))
  await t.test("any of several tags, each entry once", async () => assert.deepEqual(await by("A:1", "A:list:*", "B:1"), [1, 2, 3]))
  await t.test("none: an empty list", async () => assert.deepEqual(await by("C:1"), []))
  await t.test("what was cleared is not among them", async () => {
    await provider.clear({ tags: ["A:1"] })
    assert.deepEqual(await by("A:list:*"), [2])
  })
})

test("clearing", async (t) => {
  const { provider, redis } = await bed(t)
  const keys = ["auto", "default", "manual"]
  const fill = async () => {
    await provider.set({ key: "auto", data: [1], tags: ["P:1", "P:list:*"], options: { autoInvalidate: true } })
    await provider.set({ key: "default", data: [1], tags: ["P:1"], options: {} })
    await provider.set({ key: "manual", data: [1], tags: ["P:1"], options: { autoInvalidate: false } })
    await provider.set({ key: "other", data: [1], tags: ["Q:1"] })
  }
  const live = async () => {
    const found = []
    for (const key of [...keys, "other"]) if (await provider.get({ key })) found.push(key)
    return found
  }
  const cases = [
    ["by key: that one, with any options", { key: "manual" }, ["auto", "default", "other"]],
    ["by key and tags: the key decides", { key: "manual", tags: ["Q:1"] }, ["auto", "default", "other"]],
    ["by a key that is not there: nothing", { key: "none" }, [...keys, "other"]],
    ["by tag: all that carry it", { tags: ["P:1"] }, ["other"]],
    ["by several tags: all that carry any", { tags: ["P:list:*", "Q:1"] }, ["default", "manual"]],
    ["automatically: not what was stored with autoInvalidate false", { tags: ["P:1"], options: { autoInvalidate: true } }, ["manual", "other"]],
    ["with autoInvalidate false: nothing", { tags: ["P:1"], options: { autoInvalidate: false } }, [...keys, "other"]],
    ["with options that do not say: all", { tags: ["P:1"], options: {} }, ["other"]],
    ["by *: everything", { tags: ["*"] }, []],
    ["by * among others: everything", { tags: ["P:1", "*"] }, []],
    ["by no tag: nothing", { tags: [] }, [...keys, "other"]],
    ["by nothing: nothing", {}, [...keys, "other"]],
    ["by a tag that is the beginning of another: nothing", { tags: ["P"] }, [...keys, "other"]],
  ]
  for (const [what, given, expected] of cases) {
    await t.test(what, async () => {
      await fill()
      await provider.clear(given)
      assert.deepEqual(await live(), expected)
    })
  }
  await t.test("a single tag may be a text instead of a list", async () => {
    await provider.set({ key: "one", data: [1], tags: "Product:list:*" })
    await provider.set({ key: "two", data: [2], tags: ["Product:list:*"] })
    await provider.set({ key: "other", data: [3], tags: ["P"] })
    assert.deepEqual((await provider.get({ tags: "Product:list:*" })).flat().sort(), [1, 2])
    await provider.clear({ tags: "Product:list:*" })
    assert.equal(await provider.get({ key: "one" }), null)
    assert.equal(await provider.get({ key: "two" }), null)
    assert.deepEqual(await provider.get({ key: "other" }), [3])
  })
  await t.test("* leaves what is not under the prefix", async () => {
    await redis.ask("SET", "someone:else", "1")
    await provider.clear({ tags: ["*"] })
    assert.equal(await redis.ask("GET", "someone:else"), "1")
  })
  await t.test("two shops with other prefixes do not see each other", async () => {
    const other = await startProvider(t, { redisUrl: redis.url, prefix: "other:" })
    await fill()
    assert.equal(await other.get({ key: "auto" }), null)
    other.store.release("auto")
    assert.equal(await other.store.clearTags(["*"]), true)
    assert.deepEqual(await live(), [...keys, "other"])
  })
})

test("the clears of one turn of the loop are one command", async (t) => {
  const { provider } = await bed(t)
  const store = provider.store
  const before = store.counters.invalidations
  await Promise.all(Array.from({ length: 50 }, (_, n) => store.clearTags([`Product:${n}`, "Product:list:*"], true)))
  assert.equal(store.counters.invalidations - before, 1)
})

test("a read comes to the server after the clears that were asked for before it", async (t) => {
  const { provider } = await bed(t)
  for (let n = 0; n < 50; n += 1) {
    await provider.set({ key: "k", data: [n], tags: ["T:1"] })
    const cleared = provider.clear({ tags: ["T:1"] })
    assert.equal(await provider.get({ key: "k" }), null, `round ${n}`)
    provider.store.release("k")
    await cleared
  }
})

test("no clear is shared with one that has left already, as Medusa's module would have it", async (t) => {
  const { provider, redis } = await bed(t)
  // The module's rule: a second clear of the same tags waits for the first one's promise.
  let open
  const clear = () => (open ??= provider.clear({ tags: ["T:1"] }).finally(() => (open = undefined)))
  for (let round = 0; round < 50; round += 1) {
    const first = clear()
    await until("the first clear is executed", async () => (await redis.calls("MCACHE.INVALIDATE")) > 2 * round)
    await redis.ask("MCACHE.SET", "mc:k", "60", "old", "TAGS", "mc:T:1")
    await clear()
    await until("what was stored in between is gone", async () => (await redis.ask("MCACHE.GET", "mc:k")) === null)
    await first
  }
})

test("a result that was loaded before a clear and arrives after it is not stored", async (t) => {
  const { provider, redis } = await bed(t)
  const other = await startProvider(t, { redisUrl: redis.url })

  await t.test("cleared by this process", async () => {
    assert.equal(await provider.get({ key: "k" }), null)
    await provider.clear({ tags: ["T:1"] })
    await provider.set({ key: "k", data: ["old"], tags: ["T:1"] })
    assert.equal(await provider.get({ key: "k" }), null)
    await provider.set({ key: "k", data: ["new"], tags: ["T:1"] })
    assert.deepEqual(await provider.get({ key: "k" }), ["new"])
  })
  await t.test("cleared by another process", async () => {
    assert.equal(await provider.get({ key: "l" }), null)
    assert.equal(await other.store.clearTags(["T:2"], true), true)
    await provider.set({ key: "l", data: ["old"], tags: ["T:2"] })
    assert.equal(await provider.get({ key: "l" }), null)
    provider.store.release("l")
  })
  await t.test("everything cleared", async () => {
    assert.equal(await provider.get({ key: "m" }), null)
    assert.equal(await other.store.clearTags(["*"]), true)
    await provider.set({ key: "m", data: ["old"] })
    assert.equal(await provider.get({ key: "m" }), null)
    provider.store.release("m")
  })
  await t.test("two loads under way: the one that began first counts for both", async () => {
    assert.equal(await provider.get({ key: "n" }), null)
    await provider.clear({ tags: ["T:3"] })
    // The second load begins after the clear, but which of the two ends first is not known.
    const second = new (Object.getPrototypeOf(provider).constructor)({ mcacheStore: provider.store })
    provider.store.options.waitMs = 0
    assert.equal(await second.get({ key: "n" }), null)
    await provider.set({ key: "n", data: ["old"], tags: ["T:3"] })
    assert.equal(await redis.ask("MCACHE.GET", "mc:n"), null)
  })
  assert.ok(provider.stats().refused >= 3)
})

test("what is stored without a read before it counts from now", async (t) => {
  const { provider } = await bed(t)
  await provider.clear({ tags: ["T:1"] })
  await provider.set({ key: "k", data: [1], tags: ["T:1"] })
  assert.deepEqual(await provider.get({ key: "k" }), [1])
})

test("a hundred random orders of reads, writes and clears never serve what was cleared", async (t) => {
  const { provider, redis } = await bed(t)
  const other = await startProvider(t, { redisUrl: redis.url })
  provider.store.options.waitMs = 0
  other.store.options.waitMs = 0
  const { pick } = seededRandom()
  // The database: rows with a version. A result is what was read at the beginning of a load.
  const rows = [0, 0, 0]
  const loads = []
  for (let step = 0; step < 1500; step += 1) {
    const row = pick(rows.length)
    const process_ = pick(2) ? provider : other
    const what = pick(10)
    if (what < 5) {
      const floor = rows[row]
      const found = await process_.get({ key: `row${row}` })
      if (found) assert.ok(found.version >= floor, `step ${step}: ${found.version} served after ${floor}`)
      else loads.push({ process_, row, version: rows[row] })
    } else if (what < 8 && loads.length > 0) {
      const [load] = loads.splice(pick(loads.length), 1)
      await load.process_.set({ key: `row${load.row}`, data: { version: load.version }, tags: [`Row:${load.row}`] })
    } else if (what === 8) {
      rows[row] += 1
      assert.ok(await process_.store.clearTags([`Row:${row}`, "Row:list:*"], true))
    }
  }
  assert.ok(provider.stats().hits > 0 && provider.stats().refused > 0)
})

test("a refused entry is logged once, with what the server says", async (t) => {
  const redis = await TestRedis.start(t)
  await redis.ask("CONFIG", "SET", "mcache.max-tags", "3")
  const provider = await startProvider(t, { redisUrl: redis.url })
  for (let n = 0; n < 3; n += 1) await provider.set({ key: `k${n}`, data: [1], tags: ["a", "b", "c", "d"] })
  const lines = provider.logger.lines.filter((line) => line.includes("max-tags"))
  assert.equal(lines.length, 1)
  assert.equal(provider.stats().errors, 3)
})
