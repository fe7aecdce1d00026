"use strict"
/** What a developer is told when the start goes wrong. */
const { test } = require("node:test")
const assert = require("node:assert")
const fs = require("node:fs")
const http = require("node:http")
const net = require("node:net")
const path = require("node:path")
const { Store } = require("../src/store")
const { TestRedis, freePort, startCluster, startSentinel } = require("./support/redis")
const { startProvider, listener } = require("./support/provider")
const { until } = require("./support/until")

test("a Redis without the module: the error says what to do", async (t) => {
  const redis = await TestRedis.start(t, { module: false })
  await assert.rejects(startProvider(t, { redisUrl: redis.url }), /has not loaded the mcache module.*--loadmodule.*caching-redis/)
})

test("a wrong password: the error says so, and does not repeat it", async (t) => {
  const redis = await TestRedis.start(t, { args: ["--requirepass", "right"] })
  const url = `redis://:wrong@127.0.0.1:${redis.port}/0`
  await assert.rejects(startProvider(t, { redisUrl: url }), (error) => {
    assert.match(error.message, /refuses user or password/)
    assert.ok(!error.message.includes("wrong@"))
    return true
  })
})

test("no URL: the error names the option", async (t) => {
  await assert.rejects(startProvider(t, { redisUrl: undefined }), /redisUrl is required/)
})

test("a Redis that is not there: the shop starts, is told, and caches as soon as it comes", async (t) => {
  const port = await freePort()
  const provider = await startProvider(t, { redisUrl: `redis://127.0.0.1:${port}/0`, connectTimeout: 2_000 }, listener())
  assert.ok(provider.logger.said("cannot be reached"))
  assert.equal(await provider.get({ key: "k" }), null)
  await provider.set({ key: "k", data: [1] })
  assert.equal(provider.stats().bypassed, 1)
  await TestRedis.start(t, { port })
  await until("it is used", async () => {
    await provider.set({ key: "k", data: [1] })
    return await provider.get({ key: "k" })
  })
})

test("a Redis that comes later and lacks the module is reported and left alone", async (t) => {
  const port = await freePort()
  const provider = await startProvider(t, { redisUrl: `redis://127.0.0.1:${port}/0`, connectTimeout: 2_000 })
  await TestRedis.start(t, { port, module: false })
  await until("it is reported", () => provider.logger.said("has not loaded the mcache module"))
  assert.equal(await provider.get({ key: "k" }), null)
  await provider.clear({ tags: ["T:1"] })
})

/** A server that speaks so much of Redis' protocol that ioredis takes it for one of that version. */
async function startPretender(t, version) {
  const info = `# Server\r\nredis_version:${version}\r\nredis_mode:standalone\r\nloading:0\r\nrole:master\r\n`
  const answers = { info: `$${info.length}\r\n${info}\r\n`, command: `*5\r\n${"$-1\r\n".repeat(5)}` }
  const server = net.createServer((socket) => {
    socket.on("error", () => {})
    socket.on("data", (data) => {
      for (const [, name] of String(data).matchAll(/\*\d+\r\n\$\d+\r\n(\w+)/g)) socket.write(answers[name.toLowerCase()] ?? "+OK\r\n")
    })
  })
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  t.after(() => server.close())
  return `redis://127.0.0.1:${server.address().port}/0`
}

test("an old server: the error names its version and the one that is needed", async (t) => {
  const redisUrl = await startPretender(t, "6.2.14")
  await assert.rejects(startProvider(t, { redisUrl }), /is Redis 6\.2\.14; the mcache module needs 7\.0\.5 or later\. Upgrade it/)
})

test("a web server's port: the error says that it is no Redis", async (t) => {
  const server = http.createServer((_, response) => response.end())
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  t.after(() => server.close())
  const redisUrl = `redis://127.0.0.1:${server.address().port}/0`
  await assert.rejects(startProvider(t, { redisUrl, connectTimeout: 5_000 }), /answers, but is no Redis .* is it the right port\?/)
})

test("rediss:// at a server without TLS: what the log says names TLS", async (t) => {
  const redis = await TestRedis.start(t)
  const provider = await startProvider(t, { redisUrl: `rediss://127.0.0.1:${redis.port}/0`, connectTimeout: 2_000 })
  assert.ok(provider.logger.said("rediss:// is for servers with TLS"), provider.logger.lines.join("\n"))
})

test("a replica: the log says that it takes no writes, and the shop runs", async (t) => {
  const primary = await TestRedis.start(t)
  const replica = await TestRedis.start(t, { args: ["--replicaof", "127.0.0.1", primary.port] })
  const provider = await startProvider(t, { redisUrl: replica.url })
  assert.ok(provider.logger.said("is a replica, which takes no writes"))
  assert.equal(await provider.get({ key: "k" }), null)
})

test("Sentinels", async (t) => {
  const primary = await TestRedis.start(t, { module: false })
  const sentinel = await startSentinel(t, primary)
  const sentinels = [{ host: "127.0.0.1", port: sentinel.port }]
  await t.test("a Sentinel's own address as redisUrl: the error says where it belongs", async (t) => {
    await assert.rejects(startProvider(t, { redisUrl: sentinel.url }), /is a Sentinel, which keeps no data.*redisOptions.*sentinels/)
  })
  await t.test("a primary without the module: the error names it as the Sentinels do", async (t) => {
    const redisOptions = { sentinels, name: "shop" }
    await assert.rejects(startProvider(t, { redisUrl: undefined, redisOptions }), /the primary "shop" that the Sentinels name .*has not loaded the mcache module/)
  })
  await t.test("a name that they do not know: the log says what to look at", async (t) => {
    const redisOptions = { sentinels, name: "other" }
    const provider = await startProvider(t, { redisUrl: undefined, redisOptions, connectTimeout: 2_000 })
    assert.ok(provider.logger.said("the name under which they know the primary"), provider.logger.lines.join("\n"))
  })
})

test("clusters", async (t) => {
  const nodes = await startCluster(t, 3)
  const cluster = nodes.map(({ port }) => ({ host: "127.0.0.1", port }))
  await t.test("one node as redisUrl: the error names the option", async (t) => {
    await assert.rejects(startProvider(t, { redisUrl: nodes[0].url }), /is one of 3 primaries of a Redis Cluster.*in the option cluster/)
  })
  await t.test("a node without the module: the error names the node", async (t) => {
    await nodes[1].ask("MODULE", "UNLOAD", "mcache").catch(() => {})
    const left = await nodes[1].ask("MODULE", "LIST")
    if (left.length > 0) {
      // A module with a data type is not unloaded: the node is started again without it.
      await nodes[1].kill()
      nodes[1].args = nodes[1].args.filter((arg, at, all) => arg !== "--loadmodule" && all[at - 1] !== "--loadmodule")
      await nodes[1].run()
      await until("the cluster is complete again", async () => (await nodes[0].ask("CLUSTER", "INFO")).includes("cluster_state:ok"))
    }
    await assert.rejects(startProvider(t, { cluster, connectTimeout: 5_000 }), new RegExp(`127\\.0\\.0\\.1:${nodes[1].port} of the cluster .*has not loaded the mcache module`))
  })
})

test("a server that is no cluster in the option cluster: the error says so", async (t) => {
  const redis = await TestRedis.start(t)
  const cluster = [{ host: "127.0.0.1", port: redis.port }]
  await assert.rejects(startProvider(t, { cluster, connectTimeout: 5_000 }), /is no Redis Cluster\. Give its address as redisUrl/)
})

test("a user with the rights that the README names may do all there is to do", async (t) => {
  const readme = fs.readFileSync(path.join(__dirname, "../README.md"), "utf8")
  const rules = readme.match(/ACL SETUSER shop ([^`]*)```/)[1].trim().split(/\s+/)
  const redis = await TestRedis.start(t, { args: ["--mcache.feed", "yes"] })
  await redis.ask("ACL", "SETUSER", "shop", ...rules)
  const options = { redisUrl: `redis://shop:secret@127.0.0.1:${redis.port}/0`, near: { bytes: 1 << 24 } }
  const store = await new Store({ options, logger: {} }).start()
  t.after(() => store.close())
  assert.equal(await store.get("k", { near: true }), null)
  assert.ok(await store.set({ key: "k", data: [1], tags: ["T:1"] }))
  assert.deepEqual(await store.getByTags(["T:1"]), [[1]])
  await until("it is near", async () => {
    await store.get("k", { near: true })
    return store.stats().nearHits > 0
  })
  await store.get("other")
  store.release("other")
  assert.ok(await store.clearKey("k"))
  assert.ok(await store.clearTags(["T:1"]))
  assert.deepEqual(await redis.ask("ACL", "LOG"), [])
})

test("a user who may only use the shop's keys", async (t) => {
  const redis = await TestRedis.start(t)
  await redis.ask("ACL", "SETUSER", "shop", "on", ">pw", "~mc:*", "+@all", "-@dangerous", "-command")
  const provider = await startProvider(t, { redisUrl: `redis://shop:pw@127.0.0.1:${redis.port}/0` })
  await provider.set({ key: "k", data: [1], tags: ["T:1"] })
  assert.deepEqual(await provider.get({ key: "k" }), [1])
  await provider.clear({ tags: ["T:1"] })
  assert.equal(await provider.get({ key: "k" }), null)
})
