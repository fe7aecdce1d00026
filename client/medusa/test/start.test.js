"use strict"
/** What a developer is told when the start goes wrong. */
const { test } = require("node:test")
const assert = require("node:assert")
const { TestRedis, freePort } = require("./support/redis")
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

test("a user who may only use the shop's keys", async (t) => {
  const redis = await TestRedis.start(t)
  await redis.ask("ACL", "SETUSER", "shop", "on", ">pw", "~mc:*", "+@all", "-@dangerous", "-command")
  const provider = await startProvider(t, { redisUrl: `redis://shop:pw@127.0.0.1:${redis.port}/0` })
  await provider.set({ key: "k", data: [1], tags: ["T:1"] })
  assert.deepEqual(await provider.get({ key: "k" }), [1])
  await provider.clear({ tags: ["T:1"] })
  assert.equal(await provider.get({ key: "k" }), null)
})
